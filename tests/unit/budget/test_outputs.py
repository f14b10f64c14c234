"""Outputs by the kind of the request and the size of its prompt."""

from dataclasses import replace

import pytest

from extproc.budget.outputs import MOST_KINDS, Outputs, output_kind, size_class
from extproc.budget.values import Asked, Measure, Observation, Outcome

ASKED = Asked("m", "prose", Measure(4), None)
PLAIN, THINKING = ("", 0), ("high", 0)


def seen(output: int, outcome: Outcome = Outcome.COMPLETE) -> Observation:
    return Observation(ASKED, outcome, 8192, 10, output)


def taught(kind: tuple[str, int], output: int, times: int = 200) -> Outputs:
    outputs = Outputs()
    for _ in range(times):
        outputs.add(kind, 0, seen(output), 1.0)
    return outputs


@pytest.mark.parametrize(
    ("thinking", "limit", "kind"),
    [
        ("", None, ("", 0)),
        ("low", 2047, ("low", 1)),
        ("", 2048, ("", 2)),
        ("", 0, ("", 1)),
    ],
)
def test_the_kind_is_how_much_to_think_and_the_limit(thinking, limit, kind):
    assert output_kind(replace(ASKED, thinking=thinking, output_limit=limit)) == kind


@pytest.mark.parametrize(
    ("tokens", "size"), [(0, 0), (511, 0), (512, 1), (8191, 4), (8192, 5), (10**9, 5)]
)
def test_the_size_doubles_from_class_to_class(tokens, size):
    assert size_class(tokens) == size


def test_a_cut_output_counts_as_longer():
    outputs = Outputs()
    for _ in range(200):
        outputs.add(PLAIN, 0, seen(1000, Outcome.CUT), 1.0)
    assert outputs.every.upper(0.5) > 1000


def test_kinds_are_told_apart():
    outputs = taught(PLAIN, 100)
    for _ in range(200):
        outputs.add(THINKING, 0, seen(9000), 1.0)
    assert outputs.find(PLAIN, 0).upper(0.1) < 200
    assert outputs.find(THINKING, 0).upper(0.5) > 4000


def test_a_new_size_is_like_its_kind():
    assert taught(PLAIN, 1000).find(PLAIN, 3).upper(0.5) == pytest.approx(1000, rel=0.1)


def test_a_new_kind_is_like_all_outputs():
    assert taught(PLAIN, 1000).find(THINKING, 0).upper(0.5) == pytest.approx(1000, rel=0.1)


def test_a_kind_that_more_requests_have_shown_is_like_theirs():
    wider = taught(THINKING, 9000)
    narrow = Outputs(wider)
    for _ in range(200):
        narrow.add(PLAIN, 0, seen(100), 1.0)
    assert narrow.find(THINKING, 0).upper(0.5) > 4000


def test_a_kind_begins_like_that_of_more_requests():
    narrow = Outputs(taught(THINKING, 9000))
    narrow.add(THINKING, 0, seen(9000), 1.0)
    assert narrow.find(THINKING, 0).upper(0.5) > 4000


def test_kinds_beyond_the_most_are_not_told_apart():
    outputs = Outputs()
    for number in range(MOST_KINDS + 1):
        outputs.add((str(number), 0), 0, seen(100), 1.0)
    assert outputs.find((str(MOST_KINDS), 0), 0) is outputs.every
    assert outputs.every.observations == MOST_KINDS + 1
