"""Requests as they arrive, with the lengths that the service cannot see."""

import numpy as np
import pytest

from extproc.budget.category import content_class
from extproc.budget.features import FEATURES
from extproc.planner.traffic.arrivals import Incoming, arrive, draw_limits
from extproc.planner.traffic.lengths import Trace, poisson
from tests.support.planning_cases import LMSYS_LENGTHS

TRACE = Trace(
    name="three",
    at_s=np.array([0.0, 0.5, 2.0]),
    prompt=np.array([10, 200, 3000]),
    output=np.array([5, 50, 500]),
)
LIMITS = np.array([0, 128, 128])


def arrived(trace: Trace = TRACE, seed: int = 0) -> list[Incoming]:
    return list(arrive(trace, LIMITS, seed))


def test_requests_arrive_at_the_times_of_the_trace():
    assert [each.at_ns for each in arrived()] == [0, 500_000_000, 2_000_000_000]


def test_requests_have_the_lengths_of_the_trace():
    assert [each.prompt_tokens for each in arrived()] == [10, 200, 3000]
    assert [each.output_tokens for each in arrived()] == [5, 50, 500]


def test_the_service_sees_the_stated_limit_or_none():
    assert [each.asked.output_limit for each in arrived()] == [None, 128, 128]


def test_the_service_sees_texts_and_not_tokens():
    for each in arrived():
        assert each.asked.measure.token_ids == 0
        assert each.asked.measure.text_bytes > 0
        assert len(each.asked.measure.features) == len(FEATURES)


def test_each_request_is_one_sequence():
    assert {(each.asked.sequences, each.asked.whole) for each in arrived()} == {(1, None)}


def test_the_category_is_the_class_of_the_content():
    for each in arrived():
        assert each.asked.category == content_class(each.asked.measure.features).value


@pytest.mark.parametrize(
    ("row", "wanted"), [(0, 5), (1, 50), (2, 128)], ids=["no limit", "above", "below the answer"]
)
def test_a_limit_below_the_answer_ends_it(row, wanted):
    assert arrived()[row].wanted_tokens == wanted


@pytest.mark.parametrize(("row", "needed"), [(0, 15), (1, 328), (2, 3128)])
def test_a_stated_limit_counts_in_full(row, needed):
    assert arrived()[row].needed_tokens == needed


def test_the_seed_decides_the_texts_alone():
    first, other = arrived(seed=1), arrived(seed=2)
    assert first == arrived(seed=1)
    assert [each.asked for each in first] != [each.asked for each in other]
    assert [each[:4] for each in first] == [each[:4] for each in other]


def test_prefixes_are_those_of_the_trace():
    prefixed = Trace(
        name="three",
        at_s=TRACE.at_s,
        prompt=TRACE.prompt,
        output=TRACE.output,
        prefixes=((1,), (1, 2), ()),
    )
    assert [each.prefix for each in arrived(prefixed)] == [(1,), (1, 2), ()]
    assert {each.prefix for each in arrived()} == {()}


@pytest.mark.parametrize("stated", [0.0, 0.3, 1.0])
def test_a_share_of_the_clients_states_a_limit(stated):
    trace = poisson(LMSYS_LENGTHS, 10, 4000, seed=0)
    limits = draw_limits(trace, 0, stated)
    assert (limits > 0).mean() == pytest.approx(stated, abs=0.03)
    assert (limits[limits > 0] >= trace.output[limits > 0]).all()


def test_limits_follow_their_seed():
    trace = poisson(LMSYS_LENGTHS, 10, 100, seed=0)
    assert draw_limits(trace, 1).tolist() == draw_limits(trace, 1).tolist()
    assert draw_limits(trace, 1).tolist() != draw_limits(trace, 2).tolist()
