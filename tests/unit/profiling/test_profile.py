"""`dualpool profile`: what it prints and writes."""

import io
from dataclasses import asdict, replace

import msgspec
import pytest
from rich.console import Console

from extproc.cli import main
from extproc.profiling import profile
from extproc.profiling.fitting import Decode, FirstToken, fit
from extproc.profiling.measuring import Measured
from extproc.profiling.profile import (
    Profiled,
    ProfileOptions,
    cautions,
    print_profile,
    run_profile,
)
from extproc.profiling.vllm import Facts
from extproc.simulator.engine.profiles import NAMED, read_profile, write_profile
from tests.support.paths import ROOT

MEASURED = Measured(
    (
        *(
            Decode(sequences=n, kv_tokens=kv, measured_ms=7 + 0.9 * n)
            for n, kv in ((1, 40), (2, 1500), (4, 160), (8, 2800))
        ),
        *(FirstToken(prompt_tokens=p, measured_ms=14 + 0.01 * p) for p in (16, 256, 1024, 2000)),
    ),
    8,
)
FACTS = Facts(model="tiny", max_model_len=2048, block_size=32, num_blocks=96)
PROFILED = Profiled(FACTS, MEASURED, fit(MEASURED.measurements, 2048))


def test_the_profile_is_one_that_the_planner_reads():
    instance = PROFILED.instance(gpus=2, price_per_gpu_h=2.21)
    assert read_profile(write_profile(instance)) == instance
    assert (instance.kv_tokens, instance.block_size, instance.gpus) == (3072, 32, 2)
    assert instance.overhead_s * 1e3 == PROFILED.fit.overhead_ms


def test_every_measurement_is_printed_with_its_residual():
    out = io.StringIO()
    print_profile(Console(file=out, width=100), PROFILED)
    printed = out.getvalue()
    assert printed.count("first token, ") == 4
    assert printed.count("iteration, ") == 4
    assert printed.count("%") == 8 + 2  # and those of half of the times, and of all
    assert "Half of the times are fitted within" in printed
    assert "KV cache of 96 blocks of 32 tokens, 8 sequences ran at once" in printed


def test_what_was_not_measured_is_said():
    assert "Not measured above 8 sequences." in " ".join(cautions(PROFILED))


def test_times_that_the_fit_does_not_describe_are_said():
    off = replace(PROFILED, fit=replace(PROFILED.fit, most_off=0.4))
    assert "off by more than 15%" in " ".join(cautions(off))


def test_a_measured_profile_says_how_far_it_was_measured():
    instance = PROFILED.instance()
    assert (instance.measured_sequences, instance.measured_kv_tokens) == (8, 2800)
    assert instance.max_num_seqs == 8


def test_the_measurements_are_kept_in_the_file(profiled, tmp_path):
    file = tmp_path / "profile.json"
    assert run_profile(ProfileOptions(url="http://h:1", out=file)) == 0
    assert file.read_text().count('"measured_ms"') == len(MEASURED.measurements)


def test_a_server_that_is_not_there_is_one_line_and_exit_code_1(capsys):
    assert main(["profile", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err.startswith("http://127.0.0.1:9: no answer")
    assert main(["profile", "127.0.0.1:9"]) == 1
    assert capsys.readouterr().err.startswith("http://127.0.0.1:9: no answer")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:9", "http://"])
def test_what_is_no_http_address_is_refused(url, capsys):
    assert main(["profile", url]) == 2
    expected = f"dualpool: {url}: not an HTTP address; allowed: for example 127.0.0.1:8000\n"
    assert capsys.readouterr().err == expected


def test_fewer_than_one_sequence_is_asked_the_wrong_way(capsys):
    assert run_profile(ProfileOptions(url="http://127.0.0.1:9", most=0)) == 2
    assert "--most: 0, " in capsys.readouterr().err


def give(monkeypatch, measured: Measured) -> None:
    """Let the command find these measurements."""

    async def found(_options: ProfileOptions) -> tuple[Facts, Measured]:
        return FACTS, measured

    monkeypatch.setattr(profile, "measure_server", found)


@pytest.fixture
def profiled(monkeypatch):
    give(monkeypatch, MEASURED)


def test_what_could_not_be_measured_is_told_beside_the_profile(monkeypatch, capsys):
    give(monkeypatch, replace(MEASURED, missing=("the server preempted at 8 sequences",)))
    assert run_profile(ProfileOptions(url="http://h:1")) == 0
    shown = capsys.readouterr()
    assert shown.err == "not measured: the server preempted at 8 sequences\n"
    assert "Measured and fitted, in ms" in shown.out


def test_without_a_fit_the_measurements_are_printed_and_nothing_is_written(
    monkeypatch, tmp_path, capsys
):
    give(monkeypatch, replace(MEASURED, measurements=MEASURED.measurements[:5]))
    file = tmp_path / "profile.json"
    assert run_profile(ProfileOptions(url="http://h:1", out=file)) == 1
    shown = capsys.readouterr()
    assert shown.out.count("iteration, ") == 4
    assert "window 2048" in shown.out
    assert shown.err.startswith("dualpool: 5 measurements cannot determine the 6 terms")
    assert shown.err.endswith(f"{file} not written\n")
    assert not file.exists()


def test_the_profile_is_printed_and_written(profiled, tmp_path, capsys):
    file = tmp_path / "profile.json"
    options = ProfileOptions(url="http://h:1", out=file, gpus=2, price_per_gpu_h=2.5)
    assert run_profile(options) == 0
    assert "Measured and fitted, in ms" in capsys.readouterr().out
    assert read_profile(file.read_text()) == PROFILED.instance(2, 2.5)


def test_without_a_file_the_profile_is_only_printed(profiled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_profile(ProfileOptions(url="http://h:1")) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["most", "max_num_batched_tokens", "gpus"])
def test_no_count_may_be_below_1(name, capsys):
    assert run_profile(ProfileOptions(**{"url": "http://h:1", name: 0})) == 2
    assert f"--{name.replace('_', '-')}: 0" in capsys.readouterr().err


def test_the_terms_are_those_of_the_fit():
    out = io.StringIO()
    print_profile(Console(file=out, width=100), PROFILED)
    printed = " ".join(out.getvalue().split())
    pace = PROFILED.fit.profile
    assert f"weights {pace.weights_ms:.3f}" in printed
    assert f"per sequence {pace.sequence_ms:.3f}" in printed
    assert f"per 1000 prefill tokens {1e3 * pace.prefill_token_ms:.3f}" in printed
    assert f"outside the engine, per request {PROFILED.fit.overhead_ms:.3f}" in printed


class Point(msgspec.Struct):
    measured_ms: float
    prompt_tokens: int = 0
    sequences: int = 0
    kv_tokens: float = 0.0


def test_the_shipped_profile_is_the_fit_of_the_points_that_it_ships_with():
    text = (ROOT / "extproc/profiling/h100-llama8b.json").read_bytes()
    assert read_profile(text) == NAMED["h100-llama8b"]
    points = msgspec.json.decode(text, type=dict[str, msgspec.Raw])["measurements"]
    measurements = [
        FirstToken(prompt_tokens=p.prompt_tokens, measured_ms=p.measured_ms)
        if p.prompt_tokens
        else Decode(sequences=p.sequences, kv_tokens=p.kv_tokens, measured_ms=p.measured_ms)
        for p in msgspec.json.decode(points, type=list[Point])
    ]
    found, shipped = fit(measurements, 8192).profile, NAMED["h100-llama8b"].pace
    for name, value in asdict(shipped).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-4)
