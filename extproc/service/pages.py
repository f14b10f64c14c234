"""The pages of the HTTP side, written from a copy of what was learnt."""

import asyncio
import gc
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import msgspec
from prometheus_client import CollectorRegistry, generate_latest

from extproc.budget.values import Learnt
from extproc.stream.metrics import LearntCollector

SLICE_S = 0.0005
"""How long `in_slices` runs before it gives way to the event loop."""

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
    """Write the registry's metrics and a gauge for each figure learnt, in Prometheus' format."""
    figures = CollectorRegistry()
    figures.register(LearntCollector(learnt))
    return generate_latest(registry) + generate_latest(figures)


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
