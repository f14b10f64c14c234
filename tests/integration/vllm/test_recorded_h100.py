"""The simulator beside recorded runs of real vLLM on a real H100."""

import io

import pytest
from rich.console import Console

from extproc.profiling.recorded import named_profile_of, off_by, read_recordings, show
from extproc.profiling.replaying import figures_of
from extproc.simulator.engine.profiles import NAMED
from tests.support.paths import ROOT, SHARED

FOLDER = SHARED / "data" / "h100"
pytestmark = pytest.mark.skipif(
    not (FOLDER / "traces.json").exists(), reason=f"{FOLDER}: no recorded runs"
)
WITHIN = 0.10
FIGURES = ("output_tokens_per_s", "ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms")


@pytest.fixture(scope="module")
def recordings():
    return read_recordings(FOLDER)


def errors(recordings, *kinds):
    """Return every error of the figures of the runs of these kinds, by run and figure."""
    return {
        (each.name, run.name, name): off_by(
            getattr(figures_of([run.real]), name), getattr(figures_of([each.simulate(run)]), name)
        )
        for each in recordings
        for run in each.runs.values()
        if run.name.startswith(kinds)
        for name in FIGURES
    }


def test_every_burst_and_every_mix_is_within_10_percent(recordings):
    found = errors(recordings, "burst", "mix", "kvcut")
    assert len(found) == 10 * len(FIGURES)
    assert {where: off for where, off in found.items() if abs(off) > WITHIN} == {}


def test_half_of_the_first_tokens_at_85_percent_load_are_within_20_percent(recordings):
    found = errors(recordings, "rate15")
    late = {where: off for where, off in found.items() if where[2] == "ttft_p50_ms"}
    assert len(late) == 3
    assert max(map(abs, late.values())) < 0.20


def test_preemptions_are_those_of_vllm(recordings):
    pairs = {
        (
            round(figures_of([run.real]).preemptions),
            round(figures_of([each.simulate(run)]).preemptions),
        )
        for each in recordings
        for run in each.runs.values()
    }
    assert pairs == {(0, 0), (1, 1), (29, 29)}


def test_every_time_is_fitted_within_15_percent(recordings):
    assert max(each.fit.most_off for each in recordings) < 0.15
    assert max(each.fit.median_off for each in recordings) < 0.03


def test_the_named_profile_is_that_of_the_recorded_points(recordings):
    profile, _ = named_profile_of(recordings)
    assert profile == NAMED["h100-llama8b"]


def test_the_page_shows_what_the_command_prints(recordings):
    out = io.StringIO()
    show(Console(file=out, width=120), recordings)
    page = (ROOT / "docs" / "simulation.md").read_text()
    shown = page.split("$ make versus-recorded")[1].split("```")[0].split("\n", 1)[1]
    assert [line.rstrip() for line in out.getvalue().splitlines()] == shown.splitlines()
