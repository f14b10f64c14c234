"""The choice among pools, and its judgement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.estimate import Basis, Budget
from extproc.routing.pools import (
    Decision,
    Pool,
    Reason,
    Verdict,
    choose,
    judge,
    judge_moved,
    limits,
    thresholds,
)

SHORT, LONG = Pool("short", 8192, 4096), Pool("long", 65536, 65536)
THREE = (Pool("s", 4096, 4096), Pool("m", 16384, 8192), Pool("l", 65536, 65536))


def budget(tokens, expected=None):
    return Budget(tokens, 0, 0, Basis.PRIOR, expected)


@pytest.mark.parametrize(
    ("tokens", "decision"),
    [
        (1, Decision(SHORT, Reason.FITS)),
        (4096, Decision(SHORT, Reason.FITS)),
        (4097, Decision(LONG, Reason.THRESHOLD)),
        (8192, Decision(LONG, Reason.THRESHOLD)),
        (8193, Decision(LONG, Reason.CAPACITY)),
        (65536, Decision(LONG, Reason.CAPACITY)),
        (65537, Decision(LONG, Reason.OVERSIZE)),
    ],
)
def test_two_pools(tokens, decision):
    assert choose(budget(tokens), (SHORT, LONG)) == decision


@pytest.mark.parametrize(
    ("tokens", "name", "reason"),
    [
        (4096, "s", Reason.FITS),
        (4097, "m", Reason.CAPACITY),
        (8193, "l", Reason.THRESHOLD),
        (16385, "l", Reason.CAPACITY),
    ],
)
def test_three_pools(tokens, name, reason):
    decision = choose(budget(tokens), THREE)
    assert (decision.pool.name, decision.reason) == (name, reason)


def test_one_pool_takes_everything():
    assert choose(budget(10**9), (LONG,)) == Decision(LONG, Reason.OVERSIZE)
    assert choose(budget(1), (LONG,)) == Decision(LONG, Reason.FITS)


def test_budgets_are_held_against_every_window_but_the_largest():
    assert limits(THREE) == (4096, 16384)
    assert limits((LONG,)) == (65536,)


def test_each_limit_has_the_threshold_of_its_pool():
    assert thresholds(THREE) == tuple(pool.threshold for pool in THREE[:-1])
    assert thresholds((LONG,)) == (LONG.threshold,)


@pytest.mark.parametrize(
    ("tokens", "expected", "decision"),
    [
        (8192, 4096, Decision(SHORT, Reason.FITS)),
        (8192, 4097, Decision(LONG, Reason.THRESHOLD)),
        (8193, 4096, Decision(LONG, Reason.CAPACITY)),
    ],
)
def test_a_threshold_places_what_is_expected_and_a_window_holds_the_budget(
    tokens, expected, decision
):
    assert choose(budget(tokens, expected), (SHORT, LONG)) == decision


POOLS = st.lists(st.integers(1, 1000), min_size=1, max_size=5, unique=True).map(
    lambda sizes: tuple(Pool(f"p{n}", n, n) for n in sorted(sizes))
)


@given(POOLS, st.integers(0, 1200), st.integers(0, 1200))
def test_a_larger_budget_never_goes_to_a_smaller_pool(pools, one, other):
    low, high = (choose(budget(n), pools).pool.max_model_len for n in sorted((one, other)))
    assert low <= high


@given(POOLS, st.integers(0, 1200))
def test_a_pool_is_given_only_what_it_can_hold_unless_nothing_can(pools, tokens):
    decision = choose(budget(tokens), pools)
    held = tokens <= decision.pool.max_model_len
    assert held != (decision.reason is Reason.OVERSIZE)


@given(POOLS, st.integers(0, 1200))
def test_the_choice_for_the_true_total_is_always_right(pools, tokens):
    assert judge(choose(budget(tokens), pools).pool.name, tokens, pools) is Verdict.RIGHT


@pytest.mark.parametrize(
    ("name", "tokens", "verdict"),
    [
        ("short", 8193, Verdict.MISROUTED),
        ("short", 8192, Verdict.RIGHT),
        ("long", 4096, Verdict.OVER_ROUTED),
        ("long", 4097, Verdict.RIGHT),
        ("long", 70000, Verdict.RIGHT),
    ],
)
def test_a_decision_is_judged_by_the_true_total(name, tokens, verdict):
    assert judge(name, tokens, (SHORT, LONG)) is verdict


@pytest.mark.parametrize(
    ("used", "verdict"), [(4096, Verdict.RESERVED), (4097, Verdict.RIGHT), (None, Verdict.RIGHT)]
)
def test_a_limit_that_was_reserved_and_not_used_is_told(used, verdict):
    assert judge("long", 9000, (SHORT, LONG), used) is verdict


@pytest.mark.parametrize(
    ("name", "home", "needed", "used", "verdict"),
    [
        ("long", "short", 3000, None, Verdict.RIGHT),  # a smaller pool held it, and was saturated
        ("long", "short", 8000, 3000, Verdict.RIGHT),
        ("long", "short", 9000, None, Verdict.RIGHT),  # the move undid a misroute
        ("short", "long", 7000, None, Verdict.RIGHT),
        ("short", "long", 9000, None, Verdict.MISROUTED),
        ("long", "medium", 3000, None, Verdict.OVER_ROUTED),  # by its budget already
        ("long", "medium", 9000, 3000, Verdict.RESERVED),
    ],
)
def test_a_request_that_the_load_moved_is_judged_by_what_its_budget_chose(
    name, home, needed, used, verdict
):
    pools = (
        Pool("short", 8192, 8192),
        Pool("medium", 16384, 16384),
        Pool("long", 65536, 65536),
    )
    assert judge_moved(name, home, needed, pools, used) is verdict
