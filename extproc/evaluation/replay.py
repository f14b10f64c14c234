"""Replay cases through an estimator, in order and online, as the service would see them.

Invariant: a case is decided before its answer is learnt.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from extproc.budget.estimate import Budget
from extproc.budget.values import Observation, Outcome
from extproc.evaluation.cases import Case
from extproc.evaluation.options import LONG
from extproc.evaluation.rivals import Rival
from extproc.routing.ask import is_answered
from extproc.routing.pools import Pool, Verdict, choose, judge, limits

_NEAR: Final = 0.8, 1.25
EARLY: Final = 50
"""The first observations of a category, which scores list separately."""


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One decision and how it turned out."""

    kind: str
    category: str
    seen: int
    """Answers of its category that were learnt before."""
    verdict: Verdict
    error: float
    """Estimated over true prompt tokens, less 1."""
    under: bool
    """Whether the budget is less than the tokens that were needed."""
    is_near: bool = False
    """See `is_near`."""


LONG_POOL: Final = Pool("long", LONG, LONG)
Lessons = Iterable[tuple[Case, Observation]]
Teach = Callable[[Case, Observation], Lessons]


def teach_truth(case: Case, observation: Observation) -> Lessons:
    """Teach the observation unchanged."""
    return ((case, observation),)


def replay(
    cases: Iterable[Case], rival: Rival, threshold: int, teach: Teach = teach_truth
) -> list[ReplayRow]:
    """Route every case between a pool of `threshold` tokens and a long one, and learn.

    `teach` returns what is learnt from each answer. As in the service, an answer without the output
    that was asked for teaches nothing.
    """
    pools = (Pool("short", threshold, threshold), LONG_POOL)
    seen: Counter[str] = Counter()
    rows = []
    for case in cases:
        budget = rival.budget(case)
        pool = choose(budget, pools).pool
        row = _row(case, budget, seen[case.asked.category], judge_case(case, pool, pools))
        rows.append(replace(row, is_near=is_near(case, pools)))
        observation = answer(case, pool)
        if not is_lesson(observation):
            continue
        for lesson in teach(case, observation):
            rival.observe(*lesson)
        seen[case.asked.category] += 1
    return rows


def is_lesson(observation: Observation) -> bool:
    """Return whether the service learns from the answer."""
    refused = observation.outcome is Outcome.REFUSED
    return refused or is_answered(observation.asked, observation.completion_tokens)


def judge_case(case: Case, pool: Pool, pools: Sequence[Pool]) -> Verdict:
    """Judge the choice of a pool by the tokens that the case needs."""
    return judge(pool.name, case.needed, pools, case.used)


def is_near(case: Case, pools: Sequence[Pool]) -> bool:
    """Return whether a case needs 0.8 to 1.25 times as many tokens as some limit."""
    least, most = _NEAR
    return any(least * limit <= case.needed <= most * limit for limit in limits(pools))


def answer(case: Case, pool: Pool) -> Observation:
    """Return what the pool's answer teaches, as vLLM 0.32 gives it.

    A prompt that leaves no room for output is refused; the window and the stated limit cut an
    answer. Usage counts every prompt, and the output of every sequence.
    """
    limit, room = case.asked.output_limit, pool.max_model_len - case.prompt_tokens
    # vLLM generates at least one token, so a prompt may fill the window only if nothing is
    # generated: an embedding, whose limit is 0.
    if room < (limit != 0):
        return Observation(case.asked, Outcome.REFUSED, pool.max_model_len)
    most = room if limit is None else min(room, limit)
    return Observation(
        case.asked,
        Outcome.CUT if case.completion_tokens > most else Outcome.COMPLETE,
        pool.max_model_len,
        case.whole_tokens,
        min(case.completion_tokens, most) * case.asked.sequences,
    )


def _row(case: Case, budget: Budget, seen: int, verdict: Verdict) -> ReplayRow:
    return ReplayRow(
        kind=case.kind,
        category=case.asked.category,
        seen=seen,
        verdict=verdict,
        error=budget.prompt_tokens / case.prompt_tokens - 1,
        under=budget.tokens < case.needed,
    )
