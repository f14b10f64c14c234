"""What the report says of a live service."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.planner.report.live import category_table, describe_hour
from extproc.planner.traffic.lengths import weighted
from extproc.planner.traffic.live import Category, LiveHour
from tests.unit.planner.report.test_text import SMALL, STUDY

HOUR = LiveHour(
    seconds=3600, by_pool={"short": 900, "long": 100}, misrouted=2, judged=500, busiest_per_s=1.5
)


def category(name: str, prompt: int, count: int) -> Category:
    return Category(weighted(name, np.array([prompt]), np.array([20]), np.array([1.0])), count)


def test_a_category_has_its_lengths_and_its_shares():
    threshold = STUDY.split.pools[0].threshold
    found = category_table([category("prose/m", 80, 3), category("code/m", 80_000, 1)], STUDY)
    assert str(threshold) in str(found.title)
    rows = list(zip(*(column.cells for column in found.columns), strict=True))
    assert rows[0] == ("prose/m", "3", "75.0%", "0.4%", "80", "80", "20", "20", "100.0%")
    assert rows[1][-1] == "0.0%"


def test_only_the_most_frequent_categories_are_shown():
    many = [category(f"prose/{n}", 80, 1) for n in range(50)]
    assert category_table(many, STUDY).row_count == 20


def test_the_hour_is_told_with_what_the_split_would_have_done():
    counted, split = describe_hour(HOUR, STUDY)
    assert "in the last 60 minutes the service had 1,000 requests, 0.28/s and 1.50/s" in counted
    assert "chose short for 900 (90.0%), long for 100 (10.0%); 2 of 500 judged" in counted
    assert split.startswith("a split at ")
    assert f"would have sent {STUDY.split.pools[0].sent:.1%} to short" in split


def test_loads_are_those_of_the_mean_rate():
    rate = STUDY.split.rate_per_s
    as_planned = replace(HOUR, by_pool={"short": round(rate * 3600)})
    *_, text = describe_hour(as_planned, STUDY)
    loads = ", ".join(f"{pool.utilisation:.0%}" for pool in STUDY.split.pools)
    assert f"would have been loaded {loads} on average" in text


@pytest.mark.parametrize("study", [SMALL])
def test_without_a_split_only_the_counts_are_told(study):
    assert len(list(describe_hour(HOUR, study))) == 1
