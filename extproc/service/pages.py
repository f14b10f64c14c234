"""The pages of the HTTP side, written from a copy of what was learnt."""

import asyncio
import gc
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from extproc.budget.values import Learnt
from extproc.stream.metrics import LearntCollector

SLICE_S = 0.0005
"""How long `in_slices` and the thread that writes a page run before the event loop may."""
_PAUSE_S = 0.0001

_Part = TypeVar("_Part")


async def in_slices(parts: Iterable[_Part]) -> list[_Part]:
    """Collect the parts, giving way to other tasks after every SLICE_S."""
    taken = list[_Part]()
    until = time.perf_counter() + SLICE_S
    for part in parts:
        taken.append(part)
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_S
    return taken


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector; not reentrant.

    Pages create no cycles, but so many objects that they would start a full collection, which
    stops all threads: 70 ms with 1,000 categories learnt.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def write_metrics(registry: CollectorRegistry, learnt: Learnt) -> bytes:
    """Write the registry's metrics and a gauge for each figure learnt, in Prometheus' format.

    For a thread: it pauses, so that the event loop need not wait for the interpreter lock.
    """
    return generate_latest(_Paced(registry, LearntCollector(learnt)))


class _Paced(Collector):
    """Collectors whose samples give way to the event loop, and are freed one by one.

    A thread that never waits keeps the interpreter lock until another asks for it, which on a busy
    machine takes a turn of the scheduler; and a list of 17,000 samples is freed in one step.
    """

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = collectors

    def collect(self) -> Iterator[Metric]:
        for collector in self._collectors:
            for metric in collector.collect():
                # generate_latest reads them once, in order.
                metric.samples = _paced(metric.samples)  # type: ignore[assignment]
                yield metric


def _paced(samples: list[Sample]) -> Iterator[Sample]:
    samples.reverse()
    until = time.perf_counter() + SLICE_S
    while samples:
        yield samples.pop()
        if time.perf_counter() > until:
            time.sleep(_PAUSE_S)
            until = time.perf_counter() + SLICE_S


def write_state(described: Mapping[str, object], learnt: Learnt) -> bytes:
    """Write what was learnt, after `described`, as indented JSON."""
    document = {
        **described,
        "categories": learnt.categories,
        "models": learnt.models,
        "limits": learnt.limits,
        **({"tenants": learnt.tenants} if learnt.tenants else {}),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2)
