"""What one sequence of a request needs, and what one answer says of it."""

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


@pytest.mark.parametrize(
    ("measure", "whole", "largest"),
    [
        (Measure(300), Measure(400), 75),
        (Measure(301), Measure(400), 76),
        (Measure(0, 30), Measure(0, 40), 75),
        (Measure(200, 25), Measure(200, 50), 75),
        (Measure(0), Measure(0), 0),
        (Measure(300), None, 100),
    ],
)
def test_the_largest_prompt_has_its_share_by_size(measure, whole, largest):
    assert seen(100, 1, measure=measure, whole=whole).largest_prompt == largest


def test_all_prompts_are_the_only_one_if_there_is_one():
    one, both = Measure(300), Measure(400)
    assert Asked("m", "prose", one, None).every == one
    assert Asked("m", "prose", one, None, whole=both).every == both
