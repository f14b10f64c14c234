"""Recorded runs beside the simulator: times of a known pace come out again."""

import io
import sys

import pytest
from rich.console import Console

from extproc.profiling.recorded import main, mixes, off_by, read_recordings, show
from extproc.profiling.replaying import figures_of
from extproc.simulator.engine.profiles import read_profile
from tests.support.gpu_times import SEQS, write_recording


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("recording")
    write_recording(made)
    return made


@pytest.fixture(scope="module")
def recording(folder):
    [found] = read_recordings(folder)
    return found


def test_runs_that_were_cut_short_or_warmed_up_are_left_out(recording):
    assert set(recording.runs) == {*SEQS, "rate15_128"}


@pytest.mark.parametrize("name", [*SEQS, "rate15_128"])
def test_times_of_the_simulators_own_are_reproduced_from_their_points(recording, name):
    run = recording.runs[name]
    real, guess = figures_of([run.real]), figures_of([recording.simulate(run)])
    for figure in ("output_tokens_per_s", "ttft_p50_ms", "ttft_p99_ms", "tpot_p99_ms"):
        assert getattr(guess, figure) == pytest.approx(getattr(real, figure), rel=0.03)


def test_a_fleet_that_was_not_run_is_simulated_alone(recording):
    found = {title: (real, guess) for title, real, guess in mixes(recording)}
    assert found["short 256 + long 64"][0] is None
    real, guess = found["short 128 + long 16"]
    assert guess.makespan_s == pytest.approx(real.makespan_s, rel=0.03)


def test_one_measured_instance_stands_for_two(recording):
    real, _ = {title: pair for title, *pair in mixes(recording)}["2 x 16 sequences"]
    assert real.busy_s == 2 * real.makespan_s


def test_less_capacity_gives_later_tokens(recording):
    run = recording.runs["rate15_128"]
    slow, fast = (figures_of([recording.simulate(run, speed=speed)]) for speed in (0.9, 1.1))
    assert slow.ttft_p50_ms > fast.ttft_p50_ms


def test_all_tables_are_printed(recording):
    out = io.StringIO()
    show(Console(file=out, width=120), [recording])
    printed = out.getvalue()
    assert printed.count("run1 mix_dual_short") == 1
    assert printed.count("simulated") == 1 + 4
    assert "as fitted" in printed


def test_the_profile_of_the_points_is_written_with_them(folder, tmp_path, monkeypatch, capsys):
    file = tmp_path / "named.json"
    monkeypatch.setattr(sys, "argv", ["recorded", str(folder), "--write", str(file)])
    assert main() == 0
    profile = read_profile(file.read_bytes())
    assert (profile.measured_sequences, profile.measured_kv_tokens) == (512, 300_000)
    assert file.read_text().count('"measured_ms"') == 19


def test_the_engine_can_be_simulated_without_asynchronous_scheduling(folder, monkeypatch, capsys):
    shown = []
    for words in ([], ["--synchronous"]):
        monkeypatch.setattr(sys, "argv", ["recorded", str(folder), *words])
        assert main() == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] != shown[1]


@pytest.mark.parametrize(("real", "guess", "off"), [(4, 5, 0.25), (0, 0, 0), (0, 3, 1)])
def test_an_error_is_relative_to_the_measurement(real, guess, off):
    assert off_by(real, guess) == off
