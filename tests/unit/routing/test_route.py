"""From a request to its decision, and the record's way through metadata."""

import dataclasses
import json

import pytest
from msgspec import structs

from extproc.budget.category import Labels
from extproc.budget.estimate import Basis, Budget
from extproc.budget.features import FEATURES
from extproc.budget.learner import Learner
from extproc.budget.values import Observation, Outcome
from extproc.build import build_learner, build_rules
from extproc.config.settings import BudgetSettings, Settings
from extproc.request.reader import Endpoint, Form, Image, Prompts, Thinking, read_request
from extproc.routing.models import ModelRule
from extproc.routing.pools import Pool, Reason
from extproc.routing.route import (
    Rules,
    is_informative,
    route,
    route_by_size,
    route_unread,
)
from tests.support.conversation import paper, stages

RULES = stages().rules
THREE = Rules(
    (Pool("s", 4096, 4096), Pool("m", 16384, 8192), Pool("l", 65536, 65536)), "", 1 << 20, 0, 2.5
)
REQUEST = read_request(Endpoint.COMPLETION, b'{"model": "m", "prompt": "hello", "max_tokens": 9}')


PROMPT = REQUEST.prompts.largest


def decide(rules=RULES, header="", prompt=None, **changes):
    prompts = Prompts((structs.replace(PROMPT, **(prompt or {})),))
    request = structs.replace(REQUEST, **{"prompts": prompts} | changes)
    return route(request, header, Learner(paper(), Labels(8)), rules)


def test_a_record_says_what_was_asked_and_what_was_reserved():
    routed = decide()
    assert (routed.pool, routed.reason) == ("short", Reason.FITS)
    assert (routed.asked.model, routed.asked.category) == ("m", "prose")
    assert routed.asked.output_limit == 9
    assert routed.budget == Budget(2, 0, 9, Basis.PRIOR)


def test_a_limit_holds_for_each_sequence():
    routed = decide(outputs=3)
    assert (routed.asked.output_limit, routed.asked.sequences) == (9, 3)
    assert routed.budget == decide().budget


def test_no_limit_is_not_a_limit_of_zero():
    assert decide(max_tokens=None).asked.output_limit is None
    assert decide(max_tokens=None, generates=False).asked.output_limit == 0


@pytest.mark.parametrize(("limit", "pool"), [(None, "long"), (9, "short")])
def test_the_least_output_is_reserved_unless_a_limit_is_stated(limit, pool):
    assert decide(max_tokens=limit, min_tokens=20_000).pool == pool


def test_a_header_names_the_category_where_the_operator_says_so():
    rules = dataclasses.replace(RULES, category_header="x-task")
    assert decide(rules, "chat").asked.category == "chat"
    assert decide(rules).asked.category == "unnamed"


def test_a_client_names_neither_a_category_nor_a_model_of_ours():
    rules = dataclasses.replace(RULES, category_header="x-task")
    asked = decide(rules, "other", model="(other)").asked
    assert (asked.category, asked.model) == ("OTHER", "(OTHER)")


def test_a_models_name_stays_whole():
    assert decide(model="模型").asked.model == "模型"


def test_a_batch_is_routed_by_its_largest_prompt():
    body = json.dumps({"input": ["x" * 400] * 99 + ["y" * 4000]}).encode()
    routed = decide(prompts=read_request(Endpoint.EMBEDDING, body).prompts, generates=False)
    assert (routed.asked.measure.text_bytes, routed.asked.sequences) == (4000, 100)
    assert routed.asked.whole.text_bytes == 99 * 400 + 4000
    assert routed.budget.tokens == 1000


@pytest.mark.parametrize(
    ("tokens", "pool"), [(4000, "s"), (4097, "m"), (8192, "m"), (8193, "l"), (70000, "l")]
)
def test_any_number_of_pools_can_stand_in_a_row(tokens, pool):
    assert (
        decide(THREE, prompt={"text_bytes": 0, "token_ids": tokens}, generates=False).pool == pool
    )


def test_what_is_heard_and_seen_is_measured():
    images = (Image(width=28, height=28), Image(width=0, height=0))
    seen = decide(prompt={"images": images, "audios": 3, "videos": 4}).asked
    names = ("images", "unsized_images", "audios", "videos")
    assert [seen.measure.features[FEATURES.index(name)] for name in names] == [1, 1, 3, 4]
    assert seen.category == "media"


def test_what_the_operator_states_of_a_model_is_used():
    rules = dataclasses.replace(RULES, models=(ModelRule("m", image_tokens=256),))
    prompt = {"images": (Image(width=28, height=28),)}
    assert decide(rules, prompt=prompt).asked.measure.token_ids == 256


def test_how_long_the_model_is_to_think_is_asked():
    assert decide(thinking=Thinking.LOW).asked.thinking == "low"
    assert not decide().asked.thinking


def test_an_estimator_sees_what_form_the_answer_must_have():
    assert decide(form=Form.SHAPED).asked.form == "shaped"
    assert not decide().asked.form


def test_an_unread_request_goes_to_the_largest_pool_and_reserves_nothing():
    routed = route_unread(THREE)
    assert (routed.pool, routed.reason, routed.budget.tokens) == ("l", Reason.UNREADABLE, 0)


@pytest.mark.parametrize(
    ("changes", "retryable"),
    [
        ({"token_bound": 8192 - 9}, False),
        ({"token_bound": 8192 - 8}, True),
        ({"token_bound": 8192, "max_tokens": None}, False),
        ({"token_bound": 8193, "max_tokens": None}, True),
        ({"token_bound": None}, True),
        ({"token_bound": 4192, "max_tokens": None, "min_tokens": 4000}, False),
        ({"token_bound": 4193, "max_tokens": None, "min_tokens": 4000}, True),
        ({"token_bound": 8192 - 9, "min_tokens": 10}, False),  # no pool accepts it
    ],
)
def test_a_request_that_its_body_proves_to_fit_is_not_retried(changes, retryable):
    routed = decide(**changes)
    assert (routed.pool, routed.retryable) == ("short", retryable)


@pytest.mark.parametrize(
    ("body_bytes", "pool", "retryable"),
    [
        (0, "s", True),
        (10239, "s", True),  # 2.5 bytes for each of 4,096 tokens
        (10240, "m", True),
        (20479, "m", True),  # its threshold counts, not its window
        (20480, "l", False),
        (1 << 40, "l", False),
        (None, "l", False),
    ],
)
def test_the_size_alone_decides_for_the_smallest_pool_that_should_hold_it(
    body_bytes, pool, retryable
):
    routed = route_by_size(body_bytes, THREE)
    assert (routed.pool, routed.reason, routed.retryable) == (pool, Reason.BUSY, retryable)


def test_the_size_counts_by_the_bytes_per_token_of_the_rules():
    rules = dataclasses.replace(THREE, bytes_per_token=0.5)
    assert [route_by_size(size, rules).pool for size in (2047, 2048)] == ["s", "m"]


def test_a_pool_alone_takes_every_size():
    only = dataclasses.replace(THREE, pools=THREE.pools[:1])
    assert [route_by_size(size, only).pool for size in (1, 1 << 30)] == ["s", "s"]


def test_the_largest_pool_has_none_to_retry_on():
    assert not decide(prompt={"text_bytes": 200_000}, token_bound=None).retryable


def test_a_schema_is_no_part_of_the_text_that_is_rendered():
    body = {"messages": [{"content": "hello"}], "response_format": {"schema": {"a": ["b"] * 50}}}
    request = read_request(Endpoint.CHAT, json.dumps(body).encode())
    measured = decide(prompts=request.prompts).asked.measure
    assert measured.text_bytes == 5
    assert measured.features[FEATURES.index("schema")] > 50


RESPONSE = b'{"model": "m", "input": "hello", "max_output_tokens": 9%s}'


def decide_response(fields: bytes, *, stored: bool):
    rules = dataclasses.replace(RULES, responses_are_stored=stored)
    request = read_request(Endpoint.RESPONSES, RESPONSE % fields)
    return route(request, "", Learner(paper(), Labels(8)), rules)


@pytest.mark.parametrize(
    ("fields", "stored", "kept"),
    [
        (b"", True, True),
        (b', "store": true', True, True),
        (b', "store": false', True, False),
        (b', "store": null', True, False),
        (b"", False, False),
        (b', "store": true', False, False),
        (b', "background": true', False, True),
        (b', "background": false', False, False),
    ],
)
def test_a_response_that_later_requests_may_name_goes_to_the_largest_pool(fields, stored, kept):
    routed = decide_response(fields, stored=stored)
    expected = ("long", Reason.STATEFUL) if kept else ("short", Reason.FITS)
    assert (routed.pool, routed.reason) == expected
    assert not (kept and routed.retryable)


def test_a_response_that_is_stored_teaches_as_any_other():
    routed = decide_response(b"", stored=True)
    assert routed.reason.is_read
    assert (routed.asked.output_limit, routed.budget.output_tokens) == (9, 9)


def test_no_other_api_stores_its_answers():
    rules = dataclasses.replace(RULES, responses_are_stored=True)
    body = b'{"messages": [{"content": "hi"}], "store": true, "background": true}'
    request = read_request(Endpoint.CHAT, body)
    assert route(request, "", Learner(paper(), Labels(8)), rules).reason is Reason.FITS


def test_the_largest_prompt_is_that_of_the_most_tokens():
    words, digits = "the quick brown fox jumps over a lazy dog " * 500, "7" * 20_000
    body = json.dumps({"prompt": [words, digits]}).encode()
    asked = decide(prompts=read_request(Endpoint.COMPLETION, body).prompts).asked
    assert asked.measure.text_bytes == 20_000
    assert asked.share == pytest.approx(0.75, abs=0.1)


def test_what_prompts_share_is_measured_once_for_each():
    query, documents = "where do owls sleep " * 20, ["1 2 3 4 5 6 7 8 9 0"] * 10
    batch = json.dumps({"query": query, "documents": documents}).encode()
    single = json.dumps({"query": query, "documents": documents[:1]}).encode()
    whole = decide(prompts=read_request(Endpoint.SCORE, batch).prompts).asked.whole
    one = decide(prompts=read_request(Endpoint.SCORE, single).prompts).asked.measure
    lower, digits = FEATURES.index("lower"), FEATURES.index("space_digit")
    assert whole.features[lower] == 10 * one.features[lower]
    assert whole.features[digits] == 10 * one.features[digits]
    assert whole.features[FEATURES.index("request")] == 10


def test_prompts_without_text_have_a_share_too():
    body = json.dumps({"input": ["", ""]}).encode()
    asked = decide(prompts=read_request(Endpoint.EMBEDDING, body).prompts, generates=False).asked
    assert asked.largest_prompt(2) == 1


def test_of_several_prompts_the_largest_is_told_by_what_was_learnt():
    rules, learner = build_rules(Settings()), build_learner(Settings())
    prose, kanji = "The owl sat still, as owls do. " * 300, "本日は晴天なり。" * 300

    def ask(*prompts):
        body = json.dumps({"model": "m", "input": prompts}).encode()
        return route(read_request(Endpoint.EMBEDDING, body), "", learner, rules).asked

    assert ask(kanji, prose).measure == ask(prose).measure
    for _ in range(60):
        for prompt, tokens in (kanji, 4800), (prose, 2400):
            learner.learn(Observation(ask(prompt), Outcome.COMPLETE, 8192, tokens))
    asked = ask(kanji, prose)
    assert asked.measure == ask(kanji).measure
    assert asked.largest_prompt(7200) == pytest.approx(4800, rel=0.01)


@pytest.mark.parametrize("hints", [False, True])
def test_the_rules_say_if_a_stated_limit_counts_in_full(hints):
    rules = dataclasses.replace(RULES, limits_are_hints=hints)
    assert decide(rules).asked.limit_is_hint is hints


@pytest.mark.parametrize(
    ("basis", "expected", "most", "informs"),
    [
        (Basis.PRIOR, 10, 20, True),
        (Basis.BORROWED, 10, 20, True),
        (Basis.CALIBRATED, 10, 20, False),
        (Basis.CALIBRATED, 10, 4097, True),
        (Basis.CALIBRATED, 16384, 16385, True),
        (Basis.CALIBRATED, 16385, 90000, False),
    ],
)
def test_an_answer_informs_if_little_is_known_or_a_window_is_near(basis, expected, most, informs):
    budget = Budget(5, 2, 5, basis, expected, most)
    assert is_informative(budget, THREE.pools) is informs


def test_a_request_that_begins_as_an_earlier_one_takes_over_its_tokens():
    settings = Settings(budget=BudgetSettings(prefixes=8))
    rules = build_rules(settings, b"secret")
    learner = build_learner(settings)
    first = {"role": "user", "content": "a word " * 400}
    turns = [first, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Why?"}]
    earlier, later = (
        read_request(Endpoint.CHAT, json.dumps({"messages": messages}).encode(), turns=True)
        for messages in (turns[:1], turns)
    )
    asked = route(earlier, "", learner, rules).asked
    learner.learn(Observation(asked, Outcome.COMPLETE, 8192, 901, 2))
    assert route(later, "", learner, rules).asked.measure.token_ids == 901


def test_by_default_no_beginning_is_remembered():
    rules = build_rules(Settings(), b"secret")
    assert rules.prefix_key is None
    body = json.dumps({"messages": [{"role": "user", "content": "a word " * 400}]}).encode()
    request = read_request(Endpoint.CHAT, body, turns=True)
    assert route(request, "", build_learner(Settings()), rules).asked.prefix is None
