"""What one sequence of a request needs, and what one answer says of it."""

import pytest
from msgspec.structs import replace

from extproc.budget.estimate import Basis, Budget
from extproc.budget.values import Asked, Measure, Observation, Outcome


def seen(prompt, completion, outcome=Outcome.COMPLETE, **asked):
    request = Asked(
        "m", "prose", asked.pop("measure", Measure(400)), asked.pop("limit", None), **asked
    )
    return Observation(request, outcome, 8192, prompt, completion)


@pytest.mark.parametrize(
    ("limit", "outcome", "needed"),
    [
        (None, Outcome.COMPLETE, 110),
        (None, Outcome.CUT, 111),
        (50, Outcome.COMPLETE, 150),
        (50, Outcome.CUT, 150),
        (0, Outcome.COMPLETE, 100),
    ],
)
def test_a_sequence_needs_its_prompt_and_its_limit_or_its_output(limit, outcome, needed):
    assert seen(100, 10, outcome, limit=limit).needed == needed


@pytest.mark.parametrize(("completion", "output"), [(80, 10), (81, 11), (88, 11), (0, 0)])
def test_several_sequences_share_the_output(completion, output):
    assert seen(100, completion, sequences=8).output_tokens == output


@pytest.mark.parametrize(("share", "largest"), [(1.0, 100), (0.75, 75), (0.751, 76), (0.001, 1)])
def test_the_largest_prompt_has_its_share(share, largest):
    assert seen(100, 1, share=share).largest_prompt == largest


@pytest.mark.parametrize(
    ("sequences", "limit", "completion", "window", "needed"),
    [
        (2, None, 661, 760, 761),  # one of them may have 660 tokens
        (2, None, 660, 760, 431),  # or 659, which leaves the window unfilled
        (2, 700, 661, 760, 800),
        (1, None, 660, 760, 761),
        (1, None, 600, 760, 701),
    ],
)
def test_a_cut_sequence_among_several_may_have_filled_the_window(
    sequences, limit, completion, window, needed
):
    found = seen(100, completion, Outcome.CUT, limit=limit, sequences=sequences)
    assert replace(found, window=window).needed == needed


def test_all_prompts_are_the_only_one_if_there_is_one():
    one, both = Measure(300), Measure(400)
    assert Asked("m", "prose", one, None).every == one
    assert Asked("m", "prose", one, None, whole=both).every == both


@pytest.mark.parametrize(
    ("limit", "completion", "outcome", "needed"),
    [
        (None, 10, Outcome.COMPLETE, 110),
        (32_000, 10, Outcome.COMPLETE, 110),
        (32_000, 8092, Outcome.CUT, 8193),
        (10, 10, Outcome.CUT, 110),
        (0, 0, Outcome.COMPLETE, 100),
    ],
)
def test_of_a_limit_that_is_a_hint_what_was_used_is_needed(limit, completion, outcome, needed):
    found = seen(100, completion, outcome, limit=limit, limit_is_hint=True)
    assert (found.needed, found.used) == (needed, needed)


def test_what_was_used_is_without_the_rest_of_a_reserved_limit():
    found = seen(100, 10, limit=50)
    assert (found.needed, found.used) == (150, 110)


def test_a_sequence_among_several_is_no_longer_than_its_limit():
    found = seen(100, 661, Outcome.CUT, limit=500, sequences=2, limit_is_hint=True)
    assert replace(found, window=760).needed == 432


@pytest.mark.parametrize(
    ("expected", "most", "placed", "near"),
    [
        (None, None, 1000, False),
        (900, None, 900, True),
        (900, 901, 900, True),
        (901, 990, 901, False),
    ],
)
def test_a_request_is_near_a_window_that_it_may_exceed_or_not(expected, most, placed, near):
    budget = Budget(900, 50, 50, Basis.CALIBRATED, expected, most)
    assert (budget.placed, budget.is_near(900)) == (placed, near)
