"""Our plans for published distributions."""

import pytest

from extproc.papers.plans import (
    INSTANCE,
    curve_section,
    differences_section,
    question,
    traces_section,
    with_tail,
)
from extproc.papers.sections import THRESHOLD
from extproc.planner.sizing.estimators import PERFECT


def test_the_public_distributions_leave_next_to_nothing_over_8192():
    figures = [row.ours for row in traces_section().rows]
    assert figures[0].startswith("1.0000")
    assert figures[1].startswith("0.9965")


def test_the_curve_has_a_share_of_the_best_for_each_workload():
    rows = [row for row in curve_section().rows if row.what.startswith("B ")]
    assert len(rows) == 8
    assert all(row.ours.count("%") == 2 for row in rows)


def test_the_tail_is_a_fifth_of_the_requests():
    assert with_tail().share_within(THRESHOLD) == pytest.approx(0.8)


def test_the_papers_count_an_instance_as_one_gpu_and_route_exactly():
    asked = question(with_tail())
    assert (INSTANCE.gpus, asked.profile, asked.estimator) == (1, INSTANCE, PERFECT)


def test_every_difference_names_both_planners():
    assert all(row.what and row.paper and row.ours for row in differences_section().rows)
