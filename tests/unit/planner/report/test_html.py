"""A study as a page and as a picture."""

import pytest

pytest.importorskip("matplotlib", reason="plots need matplotlib")

from extproc.planner.report.html import draw, page, write_reports
from extproc.planner.sizing.study import examine
from tests.support.planning_cases import LMSYS_LENGTHS, ask
from tests.unit.planner.report.test_tails import TAILS

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
    assert "the KV cache holds 252): 8 GPUs" in page(SMALL, (), "")


def test_names_cannot_break_the_page():
    workload = LMSYS_LENGTHS.between(0, 65_536)
    odd = type(workload)(
        name="<script>", prompt=workload.prompt, output=workload.output, weights=workload.weights
    )
    text = page(examine(ask(odd), max_pools=1), (), "")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_the_candidates_come_first_with_their_gpus():
    bars = draw(STUDY).axes[0]
    plans = (STUDY.by_default, STUDY.by_lengths, *STUDY.splits, STUDY.by_window)
    assert [bar.get_width() for bar in bars.patches[::-1]] == [plan.gpus for plan in plans]


def test_a_page_has_a_picture_of_its_own_for_each_plot(tmp_path):
    write_reports(STUDY, (), html=tmp_path / "a.html", png=None)
    text = (tmp_path / "a.html").read_text()
    assert text.count("<svg") == 3
    assert '<meta name="viewport" content="width=device-width' in text
    assert text.index("<b>") < text.index("<svg") < text.index("<table>")


def test_a_split_is_drawn_as_a_curve_and_one_pool_as_a_line():
    split, alone = draw(STUDY).axes[1], draw(SMALL).axes[1]
    assert [line.get_label() for line in split.lines[:2]] == [
        line.get_label() for line in alone.lines
    ]
    assert split.lines[2].get_label() == "two pools"


def test_plans_that_miss_an_objective_are_marked():
    gpus = draw(STUDY).axes[1]
    failing = [plan.thresholds[0] for plan in STUDY.curve if not plan.meets]
    assert gpus.lines[3].get_xdata() == pytest.approx(failing)


def test_tails_are_drawn_beside_the_candidates_of_equal_and_of_least_gpus():
    bars, curve, *_ = draw(STUDY, TAILS).axes
    assert len(bars.patches) == len(TAILS.equal) + len(TAILS.least)
    assert [line.get_label() for line in curve.lines] == [
        "one pool",
        "one pool, prefills in chunks",
        "split",
    ]


def test_lengths_are_drawn_with_their_thresholds():
    lengths = draw(STUDY).axes[2]
    at = [line.get_xdata()[0] for line in lengths.lines[1:]]
    assert at == list(STUDY.split.thresholds)
