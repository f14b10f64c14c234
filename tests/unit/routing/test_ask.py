"""What estimators see of a request, and of what was asked for in its answer."""

import base64
import json

import pytest

from extproc.budget.features import FEATURES
from extproc.budget.values import Asked, Measure
from extproc.request.reader import Endpoint, read_request
from extproc.routing.ask import ask, is_answered
from extproc.routing.models import ModelRule


def asked(*prompts: str):
    return ask(read_request(Endpoint.COMPLETION, json.dumps({"prompt": prompts}).encode()))


def test_the_largest_prompt_is_never_more_than_all_of_them():
    # The windows of this text alone meet its digits, those of both texts miss most of them.
    digits = ("7" * 300 + "a" * 15_700) * 64
    assert asked(digits, "a" * 8000).share == 1.0


SQUARE = "data:image/gif;base64," + base64.b64encode(b"GIF89a\x18\1\x18\1\x80\0\0").decode()
PAST = {"role": "assistant", "content": "<think>a while</think>yes"}
CHAT = {
    "model": "Qwen/Qwen3-VL-8B",
    "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": SQUARE}}] * 2},
        PAST,
        {"role": "user", "content": "why?"},
    ],
}


def counts(rule: ModelRule) -> dict[str, float]:
    request = read_request(Endpoint.CHAT, json.dumps(CHAT).encode())
    found = ask(request, models=(ModelRule("qwen*"), rule, ModelRule("*"))).measure
    return {"token_ids": found.token_ids, **dict(zip(FEATURES, found.features, strict=True))}


def test_images_of_stated_tokens_are_exact():
    found = counts(ModelRule("Qwen/*", image_tokens=64))
    assert (found["token_ids"], found["stated_images"], found["images"]) == (128, 2, 0)


def test_images_are_shrunk_to_the_stated_area():
    assert counts(ModelRule("Qwen/*"))["image_patches"] == 200
    assert counts(ModelRule("Qwen/*", max_pixels=7840))["image_patches"] == 20


def test_text_that_a_template_drops_does_not_count():
    assert counts(ModelRule("Qwen/*"))["past_reasoning"] > 0
    assert counts(ModelRule("Qwen/*", drops=frozenset({"past_reasoning"})))["past_reasoning"] == 0


def test_a_rule_of_another_model_changes_nothing():
    assert counts(ModelRule("Llama*", image_tokens=64)) == counts(ModelRule("Qwen/*"))


@pytest.mark.parametrize(
    ("limit", "completion_tokens", "answered"),
    [(9, 1, True), (None, 1, True), (9, 0, False), (None, 0, False), (0, 0, True)],
)
def test_an_answer_has_output_unless_none_was_asked_for(limit, completion_tokens, answered):
    request = Asked("m", "prose", Measure(400), limit)
    assert is_answered(request, completion_tokens) is answered
