"""The papers' planner, by the figures that it prints."""

import math

import pytest

from extproc.papers.authors import (
    AUTHORS_A100,
    AuthorsFleet,
    AuthorsQuestion,
    authors_fleet,
    coded_wait99_s,
    printed_wait99_s,
)
from extproc.planner.sizing.queueing import Queue, wait_percentile_s
from extproc.planner.traffic.published import AZURE_2023, LMSYS

HUNDRED = AuthorsQuestion(cdf=LMSYS, rate_per_s=100, slo_s=0.5)


@pytest.mark.parametrize(
    ("threshold", "instances"),
    [(65_536, 14), (512, 15), (1024, 12), (2048, 9), (4096, 8), (8192, 8), (12_288, 8)],
)
def test_its_rows_for_lmsys_are_reproduced(threshold, instances):
    assert authors_fleet(HUNDRED, threshold).instances == instances


@pytest.mark.parametrize(
    ("cdf", "homogeneous", "split"), [(AZURE_2023, 284, (118, 2)), (LMSYS, 139, (30, 30))]
)
def test_its_rows_at_1000_requests_a_second_are_reproduced(cdf, homogeneous, split):
    question = AuthorsQuestion(cdf=cdf, rate_per_s=1000, slo_s=2)
    assert authors_fleet(question, 65_536) == AuthorsFleet(homogeneous, 0)
    assert authors_fleet(question, 8192) == AuthorsFleet(*split)


def test_its_slots_are_128_at_8k_and_16_at_64k():
    assert [AUTHORS_A100.slots(window) for window in (8192, 65_536)] == [128, 16]


def test_the_coded_percentile_is_exact_for_exponential_service():
    queue = Queue(servers=10, rate_per_s=9, service_s=1)
    assert coded_wait99_s(queue) == pytest.approx(wait_percentile_s(queue))


@pytest.mark.parametrize(("rate", "ratio"), [(9.9, 0.97), (9, 0.73), (6, 0.21)])
def test_the_printed_percentile_is_too_low_where_few_wait(rate, ratio):
    queue = Queue(servers=10, rate_per_s=rate, service_s=1)
    assert printed_wait99_s(queue) / wait_percentile_s(queue) == pytest.approx(ratio, abs=0.01)


def test_both_are_infinite_where_the_queue_cannot_keep_up():
    queue = Queue(servers=1, rate_per_s=2, service_s=1)
    assert coded_wait99_s(queue) == printed_wait99_s(queue) == math.inf
