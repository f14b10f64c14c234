"""Requests that are written, and read again as the service reads them."""

import random

import pytest

from extproc.evaluation.cases import TEMPLATES
from extproc.evaluation.lengths import DrawnLength
from extproc.evaluation.requests import write_cases
from extproc.evaluation.texts import MIXED
from tests.support.evaluation_cases import Words, reader, writer


def drafts(count=200, length=(3000, 100), stated=1.0):
    rng = random.Random(1)
    return [writer(stated).write(rng, DrawnLength(*length)) for _ in range(count)]


def test_prompts_have_the_length_that_is_asked_for():
    for draft in drafts():
        assert draft.prompt_tokens == pytest.approx(3000, abs=60)


def test_the_tokens_are_those_of_the_text_the_tools_and_the_template():
    draft = next(d for d in drafts() if "tools" not in d.body)
    messages = draft.body["messages"]
    told = sum(Words().count(message["content"]) for message in messages)
    assert draft.prompt_tokens == told + TEMPLATES[0].tokens(len(messages), 0)


def test_the_mixed_class_always_has_tools_and_the_others_sometimes():
    kinds = {d.kind: 0 for d in drafts()}
    assert set(kinds) == {"english", "records", MIXED}
    assert all("tools" in d.body for d in drafts() if d.kind == MIXED)
    assert 0 < sum("tools" in d.body for d in drafts() if d.kind != MIXED) < 60


@pytest.mark.parametrize("stated", [0.0, 0.85, 1.0])
def test_so_many_requests_state_a_limit(stated):
    found = [d.body.get("max_tokens") for d in drafts(stated=stated)]
    assert set(found) <= {None, 128}
    assert found.count(128) / len(found) == pytest.approx(stated, abs=0.08)


def test_the_same_seed_gives_the_same_cases():
    def made(seed):
        return list(write_cases(writer(), reader(), lambda rng: DrawnLength(200, 20), 5, seed))

    assert made("1") == made("1")
    assert made("1") != made("2")
