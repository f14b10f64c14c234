"""Serve cases as the service would: what it decides, which answers it sees, and what it learns.

Invariant: a rival learns nothing from an answer that the service would not see.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from msgspec import structs

from extproc.budget.estimate import Budget
from extproc.budget.values import Observation, Outcome, Recalled
from extproc.evaluation.cases import Case
from extproc.evaluation.replay import answer, is_lesson, is_near, judge_case
from extproc.evaluation.rivals import Rival
from extproc.routing.counting import counted
from extproc.routing.pools import Pool, Verdict, choose, judge
from extproc.routing.resume import resume
from extproc.routing.route import is_informative, is_undecided


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Where cases are served.

    observe_sample: share of the requests that tell little whose answers the service observes, as it
    does where there are many. lag: requests that arrive before an answer is learnt. count: the
    model's tokenizer, if the service has it, for texts of up to count_bytes.
    """

    pools: tuple[Pool, ...]
    observe_sample: float
    lag: int = 0
    count: Callable[[str], int] | None = None
    count_bytes: int = 0
    seed: str = ""


@dataclass(frozen=True, slots=True)
class ServedRow:
    """One request, and what became of it."""

    verdict: Verdict
    is_near: bool
    """Whether it needs about as many tokens as the limit of a pool."""
    is_long: bool
    """Whether the smallest pool cannot hold it."""
    weight: int
    """The requests that its answer stands for in the service's metrics; 0 if it was not seen."""
    is_counted: bool
    """Whether the service counts it as misrouted, if it sees the answer."""


def serve(
    cases: Iterable[Case],
    rival: Rival,
    conditions: Conditions,
    recall: Callable[[str], Recalled | None] | None = None,
) -> Iterator[ServedRow]:
    """Decide each case, judge it by the truth, and learn from the answers that are seen.

    `recall` knows the beginnings of prompts.
    """
    rng = random.Random(conditions.seed)  # noqa: S311 - reproducible, not secret
    pools, lessons = conditions.pools, deque[tuple[Case, Observation] | None]()
    for sent in cases:
        case = sent
        if recall and sent.trail:
            case = replace(sent, asked=resume(sent.asked, sent.trail, recall), trail=None)
        budget = rival.budget(case)
        if is_undecided(budget, pools) and (known := _counted(case, conditions)):
            case, budget = known, rival.budget(known)
        pool = choose(budget, pools).pool
        one_in = observe_one_in(budget, conditions)
        # Drawn also where it decides nothing, so that all rivals see the same answers.
        is_seen = rng.random() * one_in < 1.0
        seen = structs.replace(answer_of(case, pool, pools), stands_for=one_in)
        lessons.append((case, seen) if is_seen and is_lesson(seen) else None)
        yield _row(case, pool, pools, seen, one_in if is_seen else 0)
        if len(lessons) > conditions.lag and (lesson := lessons.popleft()):
            rival.observe(*lesson)


def _counted(case: Case, conditions: Conditions) -> Case | None:
    size = case.asked.measure.text_bytes
    if not conditions.count or not case.texts or size > conditions.count_bytes:
        return None
    return replace(case, asked=counted(case.asked, case.texts, conditions.count))


def observe_one_in(budget: Budget, conditions: Conditions) -> int:
    """Return of how many such requests the service observes one, where there are many."""
    return 1 if is_informative(budget, conditions.pools) else round(1 / conditions.observe_sample)


class Observed:
    """A rival that learns from the answers that the service would observe of those given."""

    def __init__(self, rival: Rival, conditions: Conditions) -> None:
        self._rival = rival
        self._conditions = conditions
        self._rng = random.Random(conditions.seed)  # noqa: S311 - reproducible, not secret

    def budget(self, case: Case) -> Budget:
        """See `Rival`."""
        return self._rival.budget(case)

    def observe(self, case: Case, observation: Observation) -> None:
        """See `Rival`."""
        one_in = observe_one_in(self._rival.budget(case), self._conditions)
        if self._rng.random() * one_in < 1.0:
            self._rival.observe(case, structs.replace(observation, stands_for=one_in))


def answer_of(case: Case, pool: Pool, pools: Sequence[Pool]) -> Observation:
    """Return what the pool's answer teaches, or that of the largest pool if it refuses."""
    seen = answer(case, pool)
    # Envoy retries a refused request on the largest pool.
    return answer(case, pools[-1]) if seen.outcome is Outcome.REFUSED else seen


def _row(
    case: Case, pool: Pool, pools: Sequence[Pool], seen: Observation, weight: int
) -> ServedRow:
    misrouted = judge(pool.name, seen.needed, pools) is Verdict.MISROUTED
    return ServedRow(
        verdict=judge_case(case, pool, pools),
        is_near=is_near(case, pools),
        is_long=case.needed > pools[0].max_model_len,
        weight=weight,
        is_counted=misrouted,
    )
