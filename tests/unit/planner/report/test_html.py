"""A study as a page and as a picture."""

import pytest

pytest.importorskip("matplotlib", reason="plots need matplotlib")

from extproc.planner.report.html import draw, page, write_reports
from extproc.planner.sizing.study import examine
from tests.support.planning_cases import LMSYS_LENGTHS, ask

STUDY = examine(ask(), max_pools=2)
SMALL = examine(ask(rate_per_s=2), max_pools=1)


def test_only_the_files_that_are_asked_for_are_written(tmp_path):
    write_reports(STUDY, (), html=tmp_path / "a.html", png=None)
    write_reports(STUDY, (), html=None, png=tmp_path / "a.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.html", "a.png"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_study_gives_the_same_page(tmp_path):
    for name in ("a", "b"):
        write_reports(STUDY, ("a note",), html=tmp_path / name, png=None)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_page_has_the_verdict_the_notes_and_every_table():
    text = page(STUDY, ("a note",), "<svg></svg>")
    assert STUDY.plan.verdict.replace("'", "&#x27;") in text
    assert "<p>Note: a note.</p>" in text
    assert text.count("<table>") == 6


def test_a_page_of_one_pool_says_what_it_costs():
    assert "One pool with max_num_seqs 227: 8 GPUs" in page(SMALL, (), "")


def test_names_cannot_break_the_page():
    workload = LMSYS_LENGTHS.between(0, 65_536)
    odd = type(workload)(
        name="<script>", prompt=workload.prompt, output=workload.output, weights=workload.weights
    )
    text = page(examine(ask(odd), max_pools=1), (), "")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_a_split_is_drawn_as_a_curve_and_one_pool_as_a_line():
    split, alone = draw(STUDY).axes[0], draw(SMALL).axes[0]
    assert [line.get_label() for line in split.lines[:2]] == [
        line.get_label() for line in alone.lines
    ]
    assert split.lines[2].get_label() == "two pools"


def test_plans_that_miss_an_objective_are_marked():
    gpus = draw(STUDY).axes[0]
    failing = [plan.thresholds[0] for plan in STUDY.curve if not plan.meets]
    assert gpus.lines[3].get_xdata() == pytest.approx(failing)


def test_lengths_are_drawn_with_their_thresholds():
    lengths = draw(STUDY).axes[1]
    at = [line.get_xdata()[0] for line in lengths.lines[1:]]
    assert at == list(STUDY.split.thresholds)
