"""Conversations that stay in their pool."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.estimate import Basis, Budget
from extproc.build import build_learner, build_rules, build_spill
from extproc.config.settings import (
    BudgetSettings,
    LoadSettings,
    Settings,
    StickyBy,
    StickySettings,
)
from extproc.request.reader import Endpoint, read_request
from extproc.routing.load.pool_load import PoolLoad
from extproc.routing.pools import Decision, Pool, Reason, choose
from extproc.routing.route import Moving, route
from extproc.routing.sticky import StickyPools, stay

SHORT, MEDIUM, LONG = (
    Pool("short", 8192, 6000),
    Pool("medium", 16_384, 16_384),
    Pool("long", 65_536, 65_536),
)
POOLS = (SHORT, MEDIUM, LONG)
FULL = PoolLoad(servers=1, known=1, running=4, waiting=400, rate=2, room=4, arrivals=4)
IDLE = PoolLoad(servers=1, known=1, running=1, rate=200)
DOWN = PoolLoad(servers=1, down=1)


def of(tokens):
    return Budget(tokens, 0, 0, Basis.CALIBRATED)


def stayed(tokens, name, pools=POOLS):
    budget = of(tokens)
    return stay(choose(budget, pools), budget, pools, name)


@pytest.mark.parametrize(
    ("tokens", "place", "pool", "reason"),
    [
        (1000, "short", SHORT, Reason.FITS),
        (7000, "short", SHORT, Reason.STICKY),  # above the threshold, within the window
        (9000, "short", LONG, Reason.STICKY),  # moves up once, not to each pool in turn
        (1000, "medium", MEDIUM, Reason.STICKY),
        (1000, "long", LONG, Reason.STICKY),
        (20_000, "long", LONG, Reason.CAPACITY),
        (20_000, "medium", LONG, Reason.CAPACITY),
        (99_000, "short", LONG, Reason.OVERSIZE),
        (1000, "gone", SHORT, Reason.FITS),
    ],
)
def test_a_conversation_stays_while_its_budget_fits(tokens, place, pool, reason):
    assert stayed(tokens, place) == Decision(pool, reason)


def test_what_must_go_to_the_largest_pool_goes_there():
    stateful = Decision(LONG, Reason.STATEFUL)
    assert stay(stateful, of(5), POOLS, "short") is stateful


@given(st.lists(st.integers(1, 70_000), min_size=1))
def test_a_conversation_moves_up_at_most_once_and_never_down(budgets):
    place, moves = stayed(budgets[0], "").pool.name, 0
    order = [pool.name for pool in POOLS]
    for tokens in budgets[1:]:
        now = stayed(tokens, place).pool.name
        assert order.index(now) >= order.index(place)
        moves, place = moves + (now != place), now
    assert moves <= 1


def test_the_conversations_used_last_are_remembered():
    pools = StickyPools(2)
    for name in ("a", "b", "a", "c"):
        pools.keep(name, name.upper())
    assert [pools.find([name]) for name in "abc"] == ["A", "", "C"]
    assert pools.find(["b", "c", "a"]) == "C"
    assert pools.find([]) == ""
    pools.resize(1)
    assert (len(pools), pools.find(["c"])) == (1, "C")


class Service:
    """Decides requests by the settings, and remembers conversations."""

    def __init__(self, by, **more):
        self.settings = Settings(sticky=StickySettings(by=by), **more)
        self.rules = build_rules(self.settings, b"secret")
        self.learner = build_learner(self.settings)
        self.pools = StickyPools(100)
        self.spill = None

    def ask(self, *contents, session="", tenant="", **fields):
        roles = ["system", *(("user", "assistant")[n % 2] for n in range(len(contents)))]
        messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
        body = {"model": "m", "max_tokens": 10, "messages": messages} | fields
        request = read_request(Endpoint.CHAT, json.dumps(body).encode(), turns=True)
        moving = Moving(self.spill, self.pools, session)
        return route(request, "", self.learner, self.rules, tenant, moving=moving)

    def spilling(self, **loads):
        self.spill = build_spill(self.settings, self.rules.pools, lambda: 0.0, lambda: 0.0)
        self.spill.tell(loads)


LIMIT = {"max_tokens": 60_000}
INSTRUCTIONS, QUESTION, ANSWER = "Be brief. " * 300, "Why? " * 10, "So. " * 10


def where(routed):
    return routed.pool, routed.reason.value


def test_a_header_names_a_conversation():
    service = Service(StickyBy.HEADER)
    assert where(service.ask("", QUESTION, session="s", **LIMIT)) == ("long", "capacity")
    found = service.ask("", QUESTION, session="s")
    assert (where(found), found.home) == (("long", "sticky"), "short")
    assert where(service.ask("", QUESTION, session="t")) == ("short", "fits")
    assert where(service.ask("", QUESTION)) == ("short", "fits")


def test_a_user_names_a_conversation():
    service = Service(StickyBy.USER)
    service.ask("", QUESTION, user="u", **LIMIT)
    assert service.ask("", QUESTION, user="u").reason is Reason.STICKY
    assert service.ask("", QUESTION, user="u", model="n").reason is Reason.FITS
    assert service.ask("", QUESTION, user="u", tenant="t").reason is Reason.FITS
    assert service.ask("", QUESTION, user=5).reason is Reason.FITS
    assert service.ask("", QUESTION, session="u").reason is Reason.FITS


def test_a_name_is_kept_as_a_digest():
    service = Service(StickyBy.USER)
    service.ask("", QUESTION, user="somebody")
    [name] = service.pools._pools
    assert len(name) == 32
    assert "somebody" not in name
    assert "secret" not in repr(service.rules)


def test_a_request_that_begins_with_an_earlier_one_is_of_its_conversation():
    service = Service(StickyBy.MESSAGES)
    service.ask(INSTRUCTIONS, QUESTION, **LIMIT)
    assert service.ask(INSTRUCTIONS, QUESTION, ANSWER, QUESTION).reason is Reason.STICKY
    assert service.ask(INSTRUCTIONS, "Else?").reason is Reason.FITS


def test_a_short_conversation_has_no_name():
    service = Service(StickyBy.MESSAGES)
    service.ask("", QUESTION, **LIMIT)
    assert len(service.pools) == 0


def test_beside_beginnings_that_are_remembered_it_stays_too():
    service = Service(StickyBy.MESSAGES, budget=BudgetSettings(prefixes=10))
    first = service.ask(INSTRUCTIONS, QUESTION, **LIMIT)
    assert first.asked.prefix.whole in service.pools._pools
    assert service.ask(INSTRUCTIONS, QUESTION, ANSWER, QUESTION).reason is Reason.STICKY


def test_the_load_moves_new_conversations_which_then_stay():
    service = Service(StickyBy.HEADER, load=LoadSettings(spill=True))
    assert where(service.ask("", QUESTION, session="old")) == ("short", "fits")
    service.spilling(short=FULL, long=IDLE)
    assert where(service.ask("", QUESTION, session="old")) == ("short", "fits")
    assert where(service.ask("", QUESTION, session="new")) == ("long", "spill")
    service.spilling(short=IDLE, long=IDLE)
    assert where(service.ask("", QUESTION, session="new")) == ("long", "sticky")


def test_a_conversation_leaves_a_pool_that_is_down():
    service = Service(StickyBy.HEADER, load=LoadSettings(spill=True))
    service.ask("", QUESTION, session="s")
    service.spilling(short=DOWN, long=IDLE)
    assert where(service.ask("", QUESTION, session="s")) == ("long", "spill")
    service.spilling(short=IDLE, long=IDLE)
    assert where(service.ask("", QUESTION, session="s")) == ("long", "sticky")


def test_by_default_nothing_stays():
    service = Service(StickyBy.NONE)
    service.ask("", QUESTION, session="s", user="u", **LIMIT)
    assert service.ask("", QUESTION, session="s", user="u").reason is Reason.FITS
    assert not service.rules.reads_turns
