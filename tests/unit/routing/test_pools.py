"""The choice among pools, and its judgement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.routing.pools import Decision, Pool, Reason, Verdict, choose, judge, limits

SHORT, LONG = Pool("short", 8192, 4096), Pool("long", 65536, 65536)
THREE = (Pool("s", 4096, 4096), Pool("m", 16384, 8192), Pool("l", 65536, 65536))


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
    assert choose([tokens], (SHORT, LONG)) == decision


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
    decision = choose([tokens, tokens], THREE)
    assert (decision.pool.name, decision.reason) == (name, reason)


def test_one_pool_takes_everything():
    assert choose([10**9], (LONG,)) == Decision(LONG, Reason.OVERSIZE)
    assert choose([1], (LONG,)) == Decision(LONG, Reason.FITS)


def choose_for(tokens, pools):
    """Choose for one budget that is the same for every limit."""
    return choose([tokens] * len(limits(pools)), pools)


def test_budgets_are_held_against_every_limit_but_the_largest():
    assert limits(THREE) == (4096, 8192)
    assert limits((LONG,)) == (65536,)


def test_each_limit_has_a_budget_of_its_own():
    assert choose([5000, 8192], THREE) == Decision(THREE[1], Reason.CAPACITY)
    assert choose([4096, 9000], THREE) == Decision(THREE[0], Reason.FITS)


POOLS = st.lists(st.integers(1, 1000), min_size=1, max_size=5, unique=True).map(
    lambda sizes: tuple(Pool(f"p{n}", n, n) for n in sorted(sizes))
)


@given(POOLS, st.integers(0, 1200), st.integers(0, 1200))
def test_a_larger_budget_never_goes_to_a_smaller_pool(pools, one, other):
    low, high = (choose_for(n, pools).pool.max_model_len for n in sorted((one, other)))
    assert low <= high


@given(POOLS, st.integers(0, 1200))
def test_a_pool_is_given_only_what_it_can_hold_unless_nothing_can(pools, tokens):
    decision = choose_for(tokens, pools)
    held = tokens <= decision.pool.max_model_len
    assert held != (decision.reason is Reason.OVERSIZE)


@given(POOLS, st.integers(0, 1200))
def test_the_choice_for_the_true_total_is_always_right(pools, tokens):
    assert judge(choose_for(tokens, pools).pool.name, tokens, pools) is Verdict.RIGHT


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
