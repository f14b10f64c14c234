"""Which row of pools has a model."""

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.build import build_rules
from extproc.config.settings import PoolSettings, RowSettings, Settings
from extproc.request.reader import Endpoint, read_request
from extproc.routing.pools import Pool, Reason
from extproc.routing.route import route, route_by_size, route_unread
from extproc.routing.rows import Row
from tests.support.conversation import stages

CHAT = tuple(Pool(f"chat-{n}", size, size) for n, size in enumerate((64, 8192, 65536)))
CODE = (Pool("code-short", 4096, 4096), Pool("code-long", 32768, 32768))
ROWS = (Row.of(["chat", "chat-*", "sql-lora"], CHAT), Row.of(["code", "*"], CODE))
BOTH = {"pools": (*CHAT, *CODE), "rows": ROWS}
LISTED = {"pools": (*CHAT, *CODE), "rows": (ROWS[0], Row.of(["code"], CODE))}


def decide(model, text="hello", rows=LISTED, **fields):
    given_stages = stages(**rows)
    body = {"model": model, "prompt": text, "max_tokens": 9} | fields
    request = read_request(Endpoint.COMPLETION, json.dumps(body).encode())
    return route(request, "", given_stages.learner, given_stages.rules)


@pytest.mark.parametrize(
    ("model", "pools"),
    [
        ("chat", CHAT),
        ("chat-", CHAT),
        ("chat-2\nb", CHAT),
        ("sql-lora", CHAT),
        ("sql-lora2", ()),
        ("Chat", ()),
        ("code", CODE),
        ("", CHAT),
    ],
)
def test_the_first_row_that_names_a_model_has_it(model, pools):
    assert stages(**LISTED).rules.row(model) == pools


@pytest.mark.parametrize("model", ["", "anything", "codes"])
def test_a_row_may_have_all_that_no_other_names(model):
    assert stages(**BOTH).rules.row(model) == CODE


def test_without_rows_the_pools_have_every_model():
    rules = stages().rules
    assert rules.row("m") == rules.pools
    assert rules.each_row == (rules.pools,)


def test_a_model_of_one_of_our_names_is_found_by_it():
    row = Row.of(["other"], CODE)
    assert decide("other", rows={"pools": CODE, "rows": (row,)}).pool == "code-short"


def test_a_row_is_called_after_its_largest_pool():
    assert [row.name for row in ROWS] == ["chat-2", "code-long"]


TEXTS = st.text("ab.+\n", max_size=4)


@given(TEXTS, TEXTS, st.text("ab.+\n", max_size=10))
def test_a_star_stands_for_any_characters(first, last, model):
    pattern = f"{re.escape(first)}.*{re.escape(last)}"
    found = re.fullmatch(pattern, model, re.DOTALL) is not None
    assert Row.of([f"{first}*{last}"], CODE).has(model) is found
    assert Row.of([first + last], CODE).has(model) is (model == first + last)


def test_a_request_stays_in_its_row():
    assert decide("sql-lora").pool == "chat-0"
    assert decide("sql-lora", "many words " * 400).pool == "chat-1"
    assert decide("sql-lora", "many words " * 400).row == CHAT
    assert decide("code", "many words " * 400).pool == "code-short"


def test_the_largest_pool_of_a_row_is_not_retried_on_that_of_another():
    assert not decide("chat", max_tokens=60_000).retryable
    assert decide("chat", max_tokens=60_000).pool == "chat-2"
    assert decide("code", max_tokens=60_000).reason is Reason.OVERSIZE


def test_a_model_that_no_row_names_is_given_no_pool():
    routed = decide("mine")
    assert (routed.pool, routed.reason, routed.row) == ("", Reason.UNLISTED, ())
    assert routed.asked.model == "mine"


def test_envoy_chooses_for_what_was_not_read():
    rules = stages(**LISTED).rules
    assert [route_unread(rules).pool, route_by_size(10, rules).pool] == ["", ""]
    assert not route_by_size(10, rules).retryable


def rows_of(*models):
    pools = (PoolSettings(name="a", max_model_len=10), PoolSettings(name="b", max_model_len=20))
    return Settings(rows=(RowSettings(models=models, pools=pools),))


def test_one_row_of_every_model_costs_no_look_up():
    assert build_rules(rows_of("x", "*")).rows == ()
    assert build_rules(rows_of("x", "*")).pools == build_rules(rows_of("x")).rows[0].pools


def test_rows_of_the_settings_are_those_of_the_rules():
    rules = build_rules(rows_of("x", "y*"))
    assert [rules.row_number(model) for model in ("x", "yy", "z", "")] == [0, 0, None, 0]
    assert dataclasses.replace(rules, rows=()).row("z") == rules.pools
