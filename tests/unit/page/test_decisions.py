"""The decisions of one process."""

import json
from dataclasses import replace

import pytest

from extproc.build import build_learner, build_rules
from extproc.config.settings import Settings
from extproc.page.decisions import EVERY_S, LATEST, Decisions
from extproc.request.reader import Endpoint, read_request
from extproc.routing.models import ModelRule
from extproc.routing.route import route, route_unread
from tests.support.clock import Clock

RULES = build_rules(Settings())


def routed(max_tokens=5, model="m", prompt="Where do owls sleep?", rules=RULES):
    body = json.dumps({"model": model, "prompt": prompt, "max_tokens": max_tokens}).encode()
    request = read_request(Endpoint.COMPLETION, body, max_bytes=1 << 20)
    return route(request, "", build_learner(Settings()), rules, "digest-of-a-tenant")


def note(decisions, decided):
    decisions.note(decided.pool, decided.reason, lambda: decided)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def decisions(clock):
    return Decisions(clock, lambda: 1000.0)


def test_all_are_counted_by_pool_and_reason(decisions):
    for each in (routed(), routed(), routed(9000), route_unread(RULES)):
        note(decisions, each)
    assert decisions.counts() == {
        "dualpool_decisions_total short fits": 2,
        "dualpool_decisions_total long capacity": 1,
        "dualpool_decisions_total long unreadable": 1,
    }


def test_one_is_kept_with_all_that_explains_it(decisions):
    note(decisions, routed())
    [shown] = decisions.take_latest()
    assert (shown.at, shown.pool, shown.reason) == (1000.0, "short", "fits")
    assert (shown.model, shown.category, shown.basis) == ("m", "prose/m", "prior")
    parts = shown.prompt_tokens, shown.margin_tokens, shown.output_tokens
    assert shown.budget_tokens == sum(parts)


def test_a_prompt_whose_text_was_counted_shows_it(decisions):
    counting = ModelRule("m", count=lambda _text: 7)
    rules = replace(RULES, models=(counting,), count_bytes=1000)
    note(decisions, routed(8150, rules=rules))
    [shown] = decisions.take_latest()
    assert shown.counted_tokens == 7


def test_at_most_ten_a_second_are_kept(decisions, clock):
    for i in range(1000):
        clock.now = i / 1000
        note(decisions, routed())
    assert 9 <= len(decisions.take_latest()) <= 10


def test_the_oldest_make_room(decisions, clock):
    for i in range(3 * LATEST):
        clock.now = 2 * EVERY_S * i
        note(decisions, routed())
    assert len(decisions.take_latest()) == LATEST


def test_they_are_taken_once(decisions):
    note(decisions, routed())
    decisions.take_latest()
    assert decisions.take_latest() == []


def test_neither_text_nor_tenant_is_kept(decisions):
    note(decisions, routed())
    shown = repr(decisions.take_latest())
    assert "owls" not in shown
    assert "tenant" not in shown


def test_a_long_name_is_cut(decisions):
    note(decisions, routed(model="m" * 250))
    [shown] = decisions.take_latest()
    assert len(shown.model) < 100
    assert len(shown.category) < 100


def test_what_was_not_read_has_no_category(decisions):
    note(decisions, route_unread(RULES))
    [shown] = decisions.take_latest()
    assert (shown.category, shown.basis, shown.reason) == ("", "", "unreadable")
