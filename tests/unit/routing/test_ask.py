"""What estimators see of a request, and of what was asked for in its answer."""

import json

import pytest

from extproc.budget.values import Asked, Measure
from extproc.request.reader import Endpoint, read_request
from extproc.routing.ask import ask, is_answered


def asked(*prompts: str):
    return ask(read_request(Endpoint.COMPLETION, json.dumps({"prompt": prompts}).encode()))


def test_the_largest_prompt_is_never_more_than_all_of_them():
    # The windows of this text alone meet its digits, those of both texts miss most of them.
    digits = ("7" * 300 + "a" * 15_700) * 64
    assert asked(digits, "a" * 8000).share == 1.0


@pytest.mark.parametrize(
    ("limit", "completion_tokens", "answered"),
    [(9, 1, True), (None, 1, True), (9, 0, False), (None, 0, False), (0, 0, True)],
)
def test_an_answer_has_output_unless_none_was_asked_for(limit, completion_tokens, answered):
    request = Asked("m", "prose", Measure(400), limit)
    assert is_answered(request, completion_tokens) is answered
