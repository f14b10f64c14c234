"""Outputs by the kind of the request and the size of its prompt."""

import pytest
from msgspec.structs import replace

from extproc.budget.outputs import Kind, Outputs, output_kind, size_class
from extproc.budget.values import Asked, Measure, Observation, Outcome

ASKED = Asked("m", "prose", Measure(4), None)
PLAIN, THINKING, SHAPED = Kind("", "", False), Kind("high", "", False), Kind("", "shaped", False)


def seen(output: int, outcome: Outcome = Outcome.COMPLETE) -> Observation:
    return Observation(ASKED, outcome, 8192, 10, output)


def taught(kind: Kind, output: int, times: int = 200) -> Outputs:
    outputs = Outputs()
    for _ in range(times):
        outputs.add(kind, 0, seen(output), 1.0)
    return outputs


@pytest.mark.parametrize(
    ("given", "limit", "hint", "kind"),
    [
        ({}, None, False, Kind("", "", False)),
        ({"thinking": "low"}, None, True, Kind("low", "", False)),
        ({"thinking": "low"}, 2048, True, Kind("low", "", True)),
        ({"form": "shaped"}, None, False, Kind("", "shaped", False)),
        ({"thinking": "low"}, 2048, False, None),
        ({}, 0, True, None),
    ],
)
def test_the_kind_is_how_much_to_think_the_form_and_whether_a_limit_is_a_hint(
    given, limit, hint, kind
):
    asked = replace(ASKED, **given, output_limit=limit, limit_is_hint=hint)
    assert output_kind(asked) == kind


def test_a_reserved_limit_tells_of_all_outputs_alone():
    outputs = Outputs()
    outputs.add(None, 0, seen(100), 1.0)
    assert outputs.find(None, 0) is outputs.find(PLAIN, 0) is outputs.every
    assert outputs.every.observations == 1


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
        outputs.add(SHAPED, 0, seen(20), 1.0)
    assert 60 < outputs.find(PLAIN, 0).upper(0.1) < 200
    assert outputs.find(THINKING, 0).upper(0.5) > 4000
    assert outputs.find(SHAPED, 0).upper(0.1) < 40


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
