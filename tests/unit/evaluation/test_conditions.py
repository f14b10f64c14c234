"""Conditions of traffic: what they change of a request, and of its true tokens."""

import random
from pathlib import Path

import pytest

from extproc.evaluation.cases import TEMPLATES, Draft
from extproc.evaluation.chat_template import ChatTemplate
from extproc.evaluation.conditions import (
    Model,
    Traffic,
    draw_short,
    make_cases,
    rendered,
    with_documents,
    with_fields,
    with_images,
    with_inline_thinking,
    with_outputs,
    with_past_reasoning,
    with_schema,
)
from tests.support.evaluation_cases import TEXTS, Words

MODEL = Model(Words(), TEMPLATES[0], TEXTS)
SAID = [{"role": role, "content": f"{role} text"} for role in ("user", "assistant", "user")]
DRAFT = Draft("english", {"messages": SAID}, 100, 10)


def changed(change, draft: Draft = DRAFT) -> Draft:
    return change(random.Random(0), draft, MODEL)


def cases(*phases, count: int = 40):
    return list(make_cases(phases, [MODEL], count, "0"))


def test_the_seed_decides_the_cases():
    assert cases((Traffic(),)) == cases((Traffic(),))


def test_phases_follow_one_another():
    found = cases((Traffic(name="a"),), (Traffic(name="b"),), count=6)
    assert [case.asked.model for case in found] == ["a"] * 3 + ["b"] * 3


def test_the_kinds_of_a_phase_arrive_by_their_shares():
    found = cases((Traffic(share=0.9, name="a"), Traffic(share=0.1, name="b")), count=300)
    assert 10 < sum(case.asked.model == "b" for case in found) < 60


def test_a_stream_that_does_not_ask_for_usage_does_not_state_it():
    streams, plain = (
        cases((Traffic(changes=changes),)) for changes in ((with_fields(stream=True),), ())
    )
    assert all(case.usage_unstated for case in streams)
    assert not any(case.usage_unstated for case in plain)


def test_classes_of_text_can_be_chosen():
    found = cases((Traffic(kinds=("records",)),))
    assert {case.kind for case in found} <= {"records", "mixed, tools"}


def test_texts_of_the_users_own_classes_stand_for_absent_ones():
    assert len(cases((Traffic(kinds=("chinese",)),))) == 40


def test_outputs_are_drawn_from_a_range():
    rng, draw = random.Random(0), with_outputs(500, 30_000)
    outputs = [draw(rng).output for _ in range(200)]
    assert 500 <= min(outputs) < 1000
    assert 15_000 < max(outputs) <= 30_000


def test_short_jobs_are_short():
    rng = random.Random(0)
    assert max(sum(draw_short(rng)) for _ in range(200)) <= 600


def test_images_add_the_tokens_of_their_sizes_and_show_them():
    found = changed(with_images(lambda width, height: 7))
    added = (found.prompt_tokens - 100) // 7
    parts = found.body["messages"][-1]["content"]
    assert 1 <= added <= 4
    assert [part["type"] for part in parts] == ["image_url"] * added + ["text"]
    assert all(p["image_url"]["url"].startswith("data:image/png") for p in parts[:-1])


def test_images_by_url_do_not_show_their_sizes():
    found = changed(with_images(lambda width, height: 7, by_url=True))
    assert found.body["messages"][-1]["content"][0]["image_url"]["url"].startswith("https:")


@pytest.mark.parametrize("change", [with_past_reasoning, with_inline_thinking])
def test_past_thoughts_cost_no_tokens(change):
    found = changed(change)
    assert found.prompt_tokens == 100
    assert len(str(found.body)) > len(str(DRAFT.body)) + 100


def test_past_reasoning_is_a_field_and_thinking_a_part_of_the_content():
    reasoning, thinking = (
        changed(change).body["messages"][1]
        for change in (with_past_reasoning, with_inline_thinking)
    )
    assert reasoning["reasoning_content"]
    assert thinking["content"].startswith("<think>")
    assert thinking["content"].endswith("</think>\n\nassistant text")


def test_a_conversation_without_an_answer_gets_one_to_think_about():
    short = Draft("english", {"messages": SAID[:1]}, 100, 10)
    found = changed(with_past_reasoning, short)
    assert [said["role"] for said in found.body["messages"]] == ["user", "assistant", "user"]
    assert found.prompt_tokens == 100 + 2 * (TEMPLATES[0].message + 2)


def test_a_schema_costs_no_tokens():
    found = changed(with_schema)
    assert found.prompt_tokens == 100
    assert found.body["response_format"]["json_schema"]["schema"]["properties"]


def test_documents_cost_tokens_only_if_they_are_rendered():
    rendered, dropped = (changed(with_documents(rendered=each)) for each in (True, False))
    assert rendered.prompt_tokens > 200
    assert dropped.prompt_tokens == 100
    assert rendered.body == dropped.body


def templated(source: str) -> Model:
    return Model(Words(), TEMPLATES[0], TEXTS, ChatTemplate(source, {}, Path("f")))


def test_a_chat_template_decides_the_tokens_of_a_prompt():
    model = templated("{% for message in messages %}said {{ message.content }} {% endfor %}")
    assert rendered(random.Random(0), DRAFT, model).prompt_tokens == 9


def test_without_a_chat_template_the_tokens_stay():
    assert changed(rendered) == DRAFT


def test_requests_that_the_template_refuses_are_left_out():
    model = templated("{% if tools %}{{ raise_exception('no tools') }}{% endif %}a")
    found = list(make_cases(((Traffic(changes=(rendered,)),),), [model], 60, "0"))
    assert 0 < len(found) < 60
    assert not any(case.tools for case in found)
