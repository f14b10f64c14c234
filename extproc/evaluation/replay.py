"""Cases through an estimator, one after another, as the service would meet them.

The rule kept here: what is judged is decided before its answer is learnt.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from extproc.budget.values import Budget, Observation, Outcome
from extproc.evaluation.cases import Case
from extproc.evaluation.options import LONG
from extproc.evaluation.rivals import Rival
from extproc.routing.pools import Pool, Verdict, choose, judge

EARLY: Final = 50
"""Observations of a category that are told apart."""


@dataclass(frozen=True, slots=True)
class Row:
    """One decision and its truth."""

    kind: str
    category: str
    seen: int
    """Answers of its category that were learnt before."""
    verdict: Verdict
    error: float
    """Estimated prompt tokens by true ones, less 1."""
    under: bool
    """Whether the whole budget is less than what was needed."""


Lessons = Iterable[tuple[Case, Observation]]
Teach = Callable[[Case, Observation], Lessons]


def teach_truth(case: Case, observation: Observation) -> Lessons:
    """Let an answer teach what it says."""
    return ((case, observation),)


def replay(
    cases: Iterable[Case], rival: Rival, threshold: int, teach: Teach = teach_truth
) -> list[Row]:
    """Route every case between two pools whose smaller window is `threshold`, and learn.

    `teach` says what is learnt from each answer.
    """
    pools = (Pool("short", threshold, threshold), Pool("long", LONG, LONG))
    seen: Counter[str] = Counter()
    rows = []
    for case in cases:
        budget = rival.budget(case, pools[0].limit)
        pool = choose([budget.tokens], pools).pool
        rows.append(_row(case, budget, seen[case.asked.category], judge_case(case, pool, pools)))
        for lesson in teach(case, answer(case, pool)):
            rival.observe(*lesson)
        seen[case.asked.category] += 1
    return rows


def judge_case(case: Case, pool: Pool, pools: tuple[Pool, ...]) -> Verdict:
    """Judge the choice of a pool by what the case needs."""
    return judge(pool.name, case.needed, pools)


def answer(case: Case, pool: Pool) -> Observation:
    """Return what the pool's answer teaches, as vLLM 0.32 gives it.

    A prompt over the window is refused; an answer is cut where the window ends.
    """
    room = pool.max_model_len - case.prompt_tokens
    if room <= 0:
        return Observation(case.asked, Outcome.REFUSED, pool.limit)
    cut = case.completion_tokens > room
    return Observation(
        case.asked,
        Outcome.CUT if cut else Outcome.COMPLETE,
        pool.limit,
        case.prompt_tokens,
        min(case.completion_tokens, room),
    )


def _row(case: Case, budget: Budget, seen: int, verdict: Verdict) -> Row:
    return Row(
        kind=case.kind,
        category=case.asked.category,
        seen=seen,
        verdict=verdict,
        error=budget.prompt_tokens / case.prompt_tokens - 1,
        under=budget.tokens < case.needed,
    )
