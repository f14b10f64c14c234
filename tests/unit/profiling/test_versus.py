"""The comparison with real servers, against the built-in pool in their place."""

import asyncio
import io
import json
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console

from extproc.profiling import versus
from extproc.profiling.fitting import Fit
from extproc.profiling.measuring import Measured
from extproc.profiling.profile import Profiled
from extproc.profiling.replaying import ReplayFigures
from extproc.profiling.versus import (
    ReplayComparison,
    VersusOptions,
    compare,
    main,
    make_cases,
    pool_of,
    pressure,
    run_versus,
    show_table,
)
from extproc.profiling.vllm import Facts
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


PROFILED = Profiled(
    Facts(model="tiny", max_model_len=512, block_size=32, num_blocks=96),
    Measured((), 16),
    Fit(profile=PACE, overhead_ms=6.0, fitted_ms=()),
)


def test_the_simulators_pool_is_the_measured_server():
    pool = pool_of(PROFILED)
    assert (pool.name, pool.instances, pool.threshold) == ("tiny", 1, 512)
    assert (pool.engine.max_model_len, pool.engine.max_num_seqs) == (512, 16)
    assert (pool.engine.num_blocks, pool.engine.block_size) == (96, 32)
    assert (pool.profile, pool.overhead_s) == (PACE, 0.006)


def test_the_share_of_waiting_time_is_printed(monkeypatch):
    waited = iter([10.0, 10.0 + 1e9])
    monkeypatch.setattr(versus, "waited_s", lambda: next(waited))
    monkeypatch.setattr(time, "monotonic", iter([0.0, 4e9]).__next__)
    out = io.StringIO()
    with pressure(Console(file=out, width=120), "run 1"):
        pass
    assert out.getvalue() == "During run 1 a process waited for a CPU 25% of the time.\n"


def test_the_waiting_time_is_read_in_seconds(monkeypatch, tmp_path):
    file = tmp_path / "cpu"
    file.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull total=9\n")
    monkeypatch.setattr(versus, "_PRESSURE", file)
    assert versus.waited_s() == 2.5
    monkeypatch.setattr(versus, "_PRESSURE", tmp_path / "absent")
    assert str(versus.waited_s()) == "nan"


def test_the_figures_are_printed_and_written(monkeypatch, tmp_path, capsys):
    async def compared(_options: VersusOptions, _console: Console) -> list[ReplayComparison]:
        return [ReplayComparison("dual", (_figures(100.0),), _figures(110.0))]

    monkeypatch.setattr(versus, "compare", compared)
    file = tmp_path / "figures.json"
    assert run_versus(replace(OPTIONS, json=file)) == 0
    assert "+10.0%" in capsys.readouterr().out
    [row] = json.loads(file.read_text())
    assert (row["name"], row["simulated"]["ttft_p50_ms"]) == ("dual", 110.0)


def test_a_server_that_cannot_be_used_is_one_line_and_exit_code_1(capsys):
    urls = ("http://127.0.0.1:9", "http://127.0.0.1:9")
    assert run_versus(replace(OPTIONS, urls=urls)) == 1
    assert capsys.readouterr().err.startswith("versus: http://127.0.0.1:9: no answer")


def test_without_servers_and_without_vllm_the_command_line_says_what_to_give(monkeypatch, capsys):
    monkeypatch.delenv("DUALPOOL_VLLM", raising=False)
    monkeypatch.setattr(sys, "argv", ["versus", "--pools", "http://only:1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "use --pools URL,URL, or set DUALPOOL_VLLM" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "rates"),
    [((), (10.0, 60.0)), (("--rate", "5"), (5.0,)), (("--rate", "5", "--rate", "7"), (5.0, 7.0))],
)
def test_the_command_line_gives_the_options(arguments, rates, monkeypatch):
    given = []
    monkeypatch.setattr(versus, "run_versus", lambda options: given.append(options) or 0)
    monkeypatch.setattr(sys, "argv", ["versus", "--pools", "http://a:1,http://b:1", *arguments])
    assert main() == 0
    assert (given[0].urls, given[0].rates) == (("http://a:1", "http://b:1"), rates)
