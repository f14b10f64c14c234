"""The pages of the HTTP side."""

import asyncio
import gc
import time

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter

from extproc.budget.values import Learnt
from extproc.service.pages import (
    SLICE_S,
    collector_paused,
    in_slices,
    write_metrics,
    write_state,
)

LEARNT = Learnt({"prose/m": {"samples": 7.0, "basis": "prior"}}, {"m": {"surprise": 1.0}})


def sliced(parts):
    """Collect parts; return them, and after which of them other work was done."""

    async def main():
        seen, between = [], []

        def each():
            for part in parts:
                seen.append(part)
                if part == "slow":
                    time.sleep(2 * SLICE_S)
                yield part

        async def other():
            while True:
                between.append(len(seen))
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        taken = await in_slices(each())
        task.cancel()
        return taken, between

    return asyncio.run(main())


def test_other_work_is_done_after_every_slice():
    parts = ["slow", "slow", "slow"]
    assert sliced(parts) == (parts, [1, 2, 3])


def test_quick_parts_share_a_slice():
    taken, between = sliced(["quick"] * 20)
    assert taken == ["quick"] * 20
    assert len(between) < 10


def test_nothing_is_an_empty_list():
    assert sliced([]) == ([], [])


def test_the_collector_is_paused_and_resumed_after_an_error():
    with pytest.raises(RuntimeError), collector_paused():
        assert not gc.isenabled()
        raise RuntimeError
    assert gc.isenabled()


def test_the_metrics_end_with_what_was_learnt():
    registry = CollectorRegistry()
    Counter("a", "A.", registry=registry).inc()
    lines = write_metrics(registry, LEARNT).decode().splitlines()
    assert "a_total 1.0" in lines
    assert lines[-1] == 'dualpool_model_surprise{model="m"} 1.0'


def test_the_state_has_figures_of_tenants_where_they_are_told_apart():
    state = msgspec.json.decode(write_state({}, Learnt(tenants={"kept": 2})))
    assert state["tenants"] == {"kept": 2.0}


def test_the_state_begins_with_the_settings():
    state = msgspec.json.decode(write_state({"target": 0.001}, LEARNT))
    assert list(state) == ["target", "categories", "models", "limits"]
    assert state["categories"] == {"prose/m": {"samples": 7.0, "basis": "prior"}}
