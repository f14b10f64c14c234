"""What one sequence of a request needs, and what one answer says of it."""

from dataclasses import replace

import pytest

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
        (2, None, 661, 0, 432),
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
