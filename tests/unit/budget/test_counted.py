"""What a template adds to text that was counted."""

import math
import random
import struct

import pytest
from msgspec import structs

from extproc.budget.counted import SavedTemplate, Template
from extproc.budget.families import Families
from extproc.budget.measure import measure
from extproc.budget.prior import MEASURED
from extproc.budget.values import Measure
from extproc.budget.weights import CLIP

WORDS = b"the pool that is chosen holds the prompt and what is answered "


def prompt(counted: int, messages: int = 1) -> Measure:
    text = (WORDS * (counted // 5 + 1))[: 4 * counted]
    return structs.replace(measure(text, len(text), messages=messages), counted=counted)


def taught(template: Template, slope: float = 1.0, answers: int = 120) -> Template:
    draw = random.Random(1)
    for _ in range(answers):
        seen = prompt(draw.randint(20, 900), draw.randint(1, 5))
        template.learn(seen, 23 + 5 * seen.features[1] + slope * seen.counted)
    return template


def test_the_template_is_exact_after_some_answers():
    found = taught(Template()).predict(prompt(500, 3))
    assert abs(found.tokens - (500 + 23 + 15)) < 1
    assert found.deviation < 1
    assert found.is_counted


def test_a_template_that_is_not_known_yet_widens_the_error():
    assert 35 < Template().predict(prompt(500)).deviation < 45


def test_a_tokenizer_of_another_model_makes_the_error_large():
    assert taught(Template(), slope=1.2).predict(prompt(500)).deviation > 30


def test_one_answer_moves_a_prediction_by_a_few_deviations():
    template = taught(Template())
    before = template.predict(prompt(500))
    template.learn(prompt(500), 90_000)
    moved = abs(template.predict(prompt(500)).tokens - before.tokens)
    assert moved <= CLIP * before.deviation


def with_tools(counted: int, tools: int, each: int = 70) -> Measure:
    text = (WORDS * (counted // 5 + 1))[: 4 * counted]
    found = measure(text, len(text), messages=1, tools=tools)
    return structs.replace(found, counted=counted + tools * each, counted_tools=tools * each)


def taught_tools(indent: float) -> Template:
    template, draw = taught(Template()), random.Random(2)
    for _ in range(150):
        seen = with_tools(draw.randint(20, 900), draw.randint(1, 9), draw.randint(40, 150))
        tools = 110 + 12 * seen.features[2] + indent * seen.counted_tools
        template.learn(seen, seen.counted + 28 + tools)
    return template


@pytest.mark.parametrize("indent", [0.0, 0.3, 0.8])
def test_what_a_template_makes_of_tool_definitions_is_learnt(indent):
    found = taught_tools(indent).predict(with_tools(500, 4, 100))
    assert abs(found.tokens - (900 + 28 + 110 + 48 + 400 * indent)) < 6
    assert found.deviation < 10


def test_the_error_of_prompts_with_tools_is_learnt_apart():
    assert taught(Template()).predict(with_tools(500, 4)).deviation > 50
    assert taught_tools(0.3).predict(prompt(500)).deviation < 6


def test_a_saved_template_goes_on():
    before, after = taught_tools(0.3), Template()
    after.load(before.save())
    assert after.save() == before.save()
    assert after.predict(prompt(500)) == before.predict(prompt(500))


@pytest.mark.parametrize("first", [-1.0, 1e9, math.nan])
def test_a_covariance_that_answers_cannot_leave_is_refused(first):
    saved = Template().save()
    with pytest.raises(ValueError, match=r"no covariance|out of range"):
        Template().load(SavedTemplate(struct.pack("d", first) + saved.learnt[8:], (1, 1)))


def member(slope: float):
    families = Families(MEASURED)
    named = families.find("m")
    draw = random.Random(1)
    for _ in range(60):
        seen = prompt(draw.randint(20, 900))
        named.learn(families, seen, 28 + slope * seen.counted, 1.0)
    return named


def test_a_name_is_estimated_by_the_count_of_its_text():
    found = member(1.0).predict(prompt(500))
    assert found.is_counted
    assert abs(found.tokens - 528) < 1


def test_a_wrong_tokenizer_is_not_believed():
    found = member(1.4).predict(prompt(300))
    assert not found.is_counted
    assert abs(found.tokens / 448 - 1) < 0.1


def test_text_that_was_not_counted_is_estimated():
    assert not member(1.0).predict(structs.replace(prompt(500), counted=0)).is_counted
