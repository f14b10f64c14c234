"""The comparison with real servers, against the built-in pool in their place."""

import asyncio
import io
from dataclasses import replace

import pytest
from rich.console import Console

from extproc.profiling.replaying import ReplayFigures
from extproc.profiling.versus import (
    ReplayComparison,
    VersusOptions,
    compare,
    make_cases,
    show_table,
)
from extproc.simulator.engine.instance import Profile
from tests.support.pool_client import serving, settings

PACE = Profile(weights_ms=2.0, sequence_ms=0.1, chunk_tokens=512)
OPTIONS = VersusOptions(urls=(), vllm=None, requests=60, rates=(60.0,), runs=1, seed=1, json=None)


def test_both_fleets_get_the_same_arrivals():
    alike, dual = make_cases(OPTIONS, 512)
    for case in (alike, dual):
        assert sum(len(trace) for _, trace in case.instances) == 60
    assert [server for server, _ in alike.instances] == [1, 1]
    short, long = (trace for _, trace in dual.instances)
    assert (short.prompt + short.output).max() <= 512 < (long.prompt + long.output).min()


def test_each_load_has_both_fleets():
    cases = make_cases(replace(OPTIONS, rates=(10.0, 60.0)), 512)
    assert [case.name.split(",")[1].strip() for case in cases] == ["10/s", "10/s", "60/s", "60/s"]


def test_a_table_says_how_far_the_simulator_and_the_runs_are_apart():
    real = (_figures(100.0), _figures(110.0))
    out = io.StringIO()
    show_table(Console(file=out, width=120), ReplayComparison("it", real, _figures(126.0)))
    assert "+20.0%" in out.getvalue()
    assert "9.5%" in out.getvalue()


def test_a_figure_that_is_zero_in_every_run_has_no_deviation():
    out = io.StringIO()
    show_table(
        Console(file=out, width=120), ReplayComparison("it", (_figures(0.0),), _figures(0.0))
    )
    assert "nan" not in out.getvalue()


@pytest.mark.slow
def test_servers_are_measured_replayed_and_compared():
    async def run() -> list[ReplayComparison]:
        pools = [settings(window=window, profile=PACE, blocks=70) for window in (512, 2048)]
        async with serving(pools[0]) as short, serving(pools[1]) as long:
            urls = tuple(str(pool.make_url("")) for pool in (short, long))
            options = replace(OPTIONS, urls=urls)
            return await compare(options, Console(quiet=True))

    compared = asyncio.run(run())
    assert [len(each.real) for each in compared] == [1, 1]
    assert all(each.simulated.output_tokens_per_s > 0 for each in compared)


def _figures(value: float) -> ReplayFigures:
    return ReplayFigures(**dict.fromkeys(ReplayFigures.__dataclass_fields__, value))
