"""Serve cases as the service would: what it decides, which answers it sees, and what it learns.

Invariant: a rival learns nothing from an answer that the service would not see.
"""

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from extproc.budget.values import Basis, Budget, Observation, Outcome
from extproc.evaluation.cases import Case
from extproc.evaluation.replay import answer, is_lesson, judge_case
from extproc.evaluation.rivals import Rival
from extproc.routing.pools import Pool, Verdict, choose, judge, limits

_NEAR: Final = 0.8, 1.25
"""Times a limit: requests that need so many tokens are near it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Where cases are served.

    usage_sample: share of the streams without usage that the service asks for it once their
    category is calibrated. lag: requests that arrive before an answer is learnt.
    """

    pools: tuple[Pool, ...]
    usage_sample: float
    lag: int = 0
    seed: str = ""


@dataclass(frozen=True, slots=True)
class ServedRow:
    """One request, and what became of it."""

    verdict: Verdict
    is_near: bool
    """Whether it needs about as many tokens as the limit of a pool."""
    is_long: bool
    """Whether the smallest pool cannot hold it."""
    is_reserved: bool
    """Whether its stated limit alone kept it from the smallest pool, which could have held it."""
    weight: float
    """The requests that its answer stands for in the service's metrics; 0 if it was not seen."""
    is_counted: bool
    """Whether the service counts it as misrouted, if it sees the answer."""


def serve(cases: Iterable[Case], rival: Rival, conditions: Conditions) -> Iterator[ServedRow]:
    """Decide each case, judge it by the truth, and learn from the answers that are seen."""
    rng = random.Random(conditions.seed)  # noqa: S311 - reproducible, not secret
    pools, lessons = conditions.pools, deque[tuple[Case, Observation] | None]()
    for case in cases:
        budgets = [rival.budget(case, limit) for limit in limits(pools)]
        pool = choose([budget.tokens for budget in budgets], pools).pool
        seen = _answer(case, pool, pools)
        likely = chance(case, budgets, conditions.usage_sample)
        # Drawn also where it decides nothing, so that all rivals see the same answers.
        is_seen = rng.random() < likely
        lessons.append((case, seen) if is_seen and is_lesson(seen) else None)
        yield _row(case, pool, pools, seen, 1.0 / likely if is_seen else 0.0)
        if len(lessons) > conditions.lag and (lesson := lessons.popleft()):
            rival.observe(*lesson)


def chance(case: Case, budgets: Sequence[Budget], usage_sample: float) -> float:
    """Return the chance with which the service sees the usage of the answer."""
    if not case.usage_unstated:
        return 1.0
    if usage_sample == 0:
        return 0.0
    return usage_sample if budgets[-1].basis is Basis.CALIBRATED else 1.0


def _answer(case: Case, pool: Pool, pools: Sequence[Pool]) -> Observation:
    seen = answer(case, pool)
    # Envoy retries a refused request on the largest pool.
    return answer(case, pools[-1]) if seen.outcome is Outcome.REFUSED else seen


def _row(
    case: Case, pool: Pool, pools: Sequence[Pool], seen: Observation, weight: float
) -> ServedRow:
    least, most = _NEAR
    smallest = pools[0]
    misrouted = judge(pool.name, seen.needed, pools) is Verdict.MISROUTED
    return ServedRow(
        verdict=judge_case(case, pool, pools),
        is_near=any(least * limit <= case.needed <= most * limit for limit in limits(pools)),
        is_long=case.needed > smallest.max_model_len,
        is_reserved=pool is not smallest and case.used <= smallest.limit < case.needed,
        weight=weight,
        is_counted=misrouted,
    )
