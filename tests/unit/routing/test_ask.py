"""What estimators see of a request."""

import json

from extproc.request.reader import Endpoint, read_request
from extproc.routing.ask import ask


def asked(*prompts: str):
    return ask(read_request(Endpoint.COMPLETION, json.dumps({"prompt": prompts}).encode()))


def test_the_largest_prompt_is_never_more_than_all_of_them():
    # The windows of this text alone meet its digits, those of both texts miss most of them.
    digits = ("7" * 300 + "a" * 15_700) * 64
    assert asked(digits, "a" * 8000).share == 1.0
