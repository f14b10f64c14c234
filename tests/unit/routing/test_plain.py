"""What is decided in one step is what the general way decides."""

import dataclasses
import json
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.budget.estimate import Basis
from extproc.budget.values import Observation, Outcome
from extproc.build import build_learner, build_rules
from extproc.config.settings import Settings
from extproc.request.reader import Endpoint, read_request
from extproc.routing.plain import PlainRouter
from extproc.routing.route import is_informative, is_undecided, route
from extproc.routing.rows import Row
from extproc.routing.tenant import TenantKey

TEXTS = st.builds(
    lambda text, times: text * times,
    st.text(max_size=30) | st.sampled_from(["owls sleep ", "x = {'a': 1};\n", "梟は眠る", "Совы "]),
    st.integers(1, 600),
)
BODIES = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m", "m-sql", "other/m", "new", ""]),
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.just("user"), "content": TEXTS}),
            min_size=1,
            max_size=3,
        ),
    },
    optional={
        "max_tokens": st.integers(0, 5000),
        "min_tokens": st.integers(0, 5000),
        "tools": st.lists(st.fixed_dictionaries({"name": TEXTS}), max_size=2),
    },
)
HEADERS = {"header": "x-kind"}


def build(**changes):
    pools = [{"name": "s", "max_model_len": 700}, {"name": "l", "max_model_len": 4000}]
    return Settings.model_validate({"pools": pools} | changes)


RULES = build_rules(build())


def ask(endpoint=Endpoint.CHAT, **changes):
    body = {"model": "m", "messages": [{"role": "user", "content": "Where do owls sleep?"}]}
    return read_request(endpoint, json.dumps(body | changes).encode())


@cache
def learner(answers, **changes):
    """Return one that knows a model well, and another one that is on probation."""
    made = build_learner(build(**changes))
    for number in range(answers):
        text = "Where do owls sleep? " * (number % 60 + 1)
        limit = {"max_tokens": 900} if number % 2 else {}
        messages = [{"role": "user", "content": text}]
        request = ask(model="m" if number % 15 else "m-sql", messages=messages, **limit)
        asked = route(request, "", made, RULES).asked
        counts = len(text) // 4 + 9, number % 90 + 1
        made.learn(Observation(asked, Outcome.COMPLETE, 4000, *counts))
    return made


def decide(request, rules, known, header=""):
    router = PlainRouter.of(rules)
    found = router.decide(request, header, known)
    return found and router.collect(request, found)


@pytest.mark.parametrize("stated", ["reserve", "hint"])
@pytest.mark.parametrize("answers", [0, 20, 150])
@given(body=BODIES, header=st.sampled_from(["", "b"]))
@example(body={"model": "m", "messages": [{"role": "user", "content": ""}]}, header="")
def test_it_is_that_of_the_general_way(answers, stated, body, header):
    settings = build(budget={"stated_limits": stated}, categories=HEADERS if header else {})
    rules, known, request = build_rules(settings), learner(answers), ask(**body)
    router = PlainRouter.of(rules)
    found = router.decide(request, header, known)
    routed = route(request, header, known, rules)
    assert router.collect(request, found) == routed
    assert found.is_informative == is_informative(routed.budget, routed.row)
    assert found.category_name == f"{routed.asked.category}/{routed.asked.model}"


def test_what_a_known_category_asks_tells_little():
    found = PlainRouter.of(RULES).decide(ask(max_tokens=9), "", learner(150))
    assert (found.budget.basis, found.is_informative) == (Basis.CALIBRATED, False)


def test_what_exact_tokens_may_decide_is_left_to_the_general_way():
    rules, known = dataclasses.replace(RULES, count_bytes=99), learner(150)
    messages = [{"role": "user", "content": "Where do owls"}]
    left = set()
    for limit in range(400, 900):
        request = ask(max_tokens=limit, messages=messages)
        found = decide(request, RULES, known)
        is_left = is_undecided(found.budget, RULES.pools)
        assert decide(request, rules, known) == (None if is_left else found)
        left.add(is_left)
    assert left == {True, False}


def test_what_may_or_may_not_fit_tells_much():
    router, messages = PlainRouter.of(RULES), [{"role": "user", "content": "Where do owls sleep? "}]
    limits = range(500, 700, 2)
    every = [
        router.decide(ask(max_tokens=limit, messages=messages), "", learner(150))
        for limit in limits
    ]
    assert any(found.is_informative for found in every)
    assert {found.budget.basis for found in every} == {Basis.CALIBRATED}


@pytest.mark.parametrize(
    "changes",
    [
        {"tenants": TenantKey("x-tenant", b"secret")},
        {"prefix_key": b"secret"},
        {"rows": (Row.of(["m"], RULES.pools),)},
    ],
)
def test_other_rules_let_more_decide(changes):
    assert PlainRouter.of(dataclasses.replace(RULES, **changes)) is None


IMAGE = {"type": "image_url", "image_url": {"url": "https://h/a.png"}}


@pytest.mark.parametrize(
    "request_",
    [
        ask(n=2),
        ask(messages=[{"role": "user", "content": [IMAGE]}]),
        ask(reasoning_effort="low"),
        ask(documents=[{"text": "d"}]),
        ask(Endpoint.EMBEDDING, input="a", truncate_prompt_tokens=9),
        ask(Endpoint.COMPLETION, prompt=["a", "b"]),
        ask(Endpoint.COMPLETION, prompt=[1, 2]),
        ask(Endpoint.RESPONSES, input="a", background=True),
    ],
)
def test_another_request_is_left_to_the_general_way(request_):
    assert decide(request_, RULES, learner(0)) is None


def test_so_is_a_response_that_the_pools_store():
    rules = build_rules(build(requests={"stored_responses": "largest"}))
    stored = ask(Endpoint.RESPONSES, input="a")
    assert decide(stored, rules, learner(0)) is None
    assert decide(stored, RULES, learner(0)) is not None


def test_so_is_everything_for_another_estimator():
    assert decide(ask(), RULES, build_learner(build(budget={"estimator": "paper"}))) is None


def test_what_was_learnt_is_used_at_once():
    known = build_learner(build())
    before = decide(ask(), RULES, known)
    asked = before.asked
    known.learn(Observation(asked, Outcome.COMPLETE, 4000, 30, 5))
    assert decide(ask(), RULES, known) == route(ask(), "", known, RULES) != before


def test_many_models_are_not_kept_for_ever():
    known = learner(0)
    for number in range(300):
        decide(ask(model=f"m{number}"), RULES, known)
    assert len(known.estimator._outlooks) <= 256
