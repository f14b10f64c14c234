"""`python -m benchmarks.recovery`: how soon a change of tokenizer is learnt, by rate and replicas.

Requests of the evaluation's built-in texts and first tokenizer come at a rate, by a clock that the
run advances, and are decided, observed, thinned and learnt as the service does; replicas are what
shares one learner, as with `state: redis://`, but for the log's delay of a tenth of a second. Then
the second tokenizer counts. It is learnt once the median error of the last 300 requests is at most
1.5 times what it was before the change.
"""

import argparse
import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import Final

from msgspec import structs
from rich.box import SIMPLE
from rich.table import Table

from extproc.budget.learner import Learner
from extproc.budget.values import Observation
from extproc.build import build_learner, build_rules
from extproc.config.settings import Settings
from extproc.evaluation.cases import TEMPLATES, Case
from extproc.evaluation.conditions import Model, Traffic, make_cases
from extproc.evaluation.replay import is_lesson, judge_case
from extproc.evaluation.serving import answer_of
from extproc.evaluation.texts import read_texts
from extproc.evaluation.tokenizer import load_tokenizers
from extproc.output import report_console
from extproc.routing.pools import Verdict, choose
from extproc.routing.route import is_informative
from extproc.stream.sampling import Sampling
from extproc.stream.thinning import Allowance, Thinning

_CASES: Final = 4000  # of each tokenizer; they come again
_BEFORE: Final = 20_000
_BEFORE_S: Final = 40.0  # rates are means over ten seconds
_AFTER: Final = 200_000
_WINDOW: Final = 300
_NO_WORSE: Final = 1.5
_WIDTH: Final = 110
_COLUMNS: Final = ("learnt/s", "error before", "at worst", "requests", "seconds", "misrouted")


@dataclass(frozen=True, slots=True)
class Row:
    """What one run saw.

    learnt_per_s: before the change. error and worst: medians, as shares of the true prompt tokens.
    requests and seconds: from the change until it is learnt; None if it never is. misrouted: the
    share of the requests between.
    """

    learnt_per_s: float
    error: float
    worst: float
    requests: int | None
    seconds: float | None
    misrouted: float


class Fleet:
    """Services that learn the same, at a time that the run sets."""

    def __init__(self, settings: Settings, replicas: int, seed: int) -> None:
        self.now_s = 0.0
        self.learnt = 0
        self._rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._rules, self._learner = build_rules(settings), build_learner(settings)
        self._learner.share(replicas)
        self._replicas = [self._replica(self._learner) for _ in range(replicas)]

    def _replica(self, learner: Learner) -> tuple[Sampling, Thinning]:
        def clock() -> float:
            return self.now_s

        draw, row = self._rng.random, self._rules.row
        thinning = Thinning(self._learn, learner, row, clock, draw, Allowance())
        return Sampling(clock), thinning

    def _learn(self, seen: Observation) -> None:
        self.learnt += 1
        self._learner.learn(seen)

    def serve(self, case: Case) -> tuple[float, bool]:
        """Decide a request, and learn; return the error of its prompt, and if it was misrouted."""
        rules, draw = self._rules, self._rng.random
        sampling, thinning = self._rng.choice(self._replicas)
        budget = self._learner.budget(case.asked)
        pool = choose(budget, rules.pools).pool
        informative = is_informative(budget, rules.pools)
        one_in = 1 if informative else sampling.one_in(rules.observe_sample)
        seen = answer_of(case, pool, rules.pools)
        if draw() * one_in < 1.0 and is_lesson(seen):
            thinning.learn(structs.replace(seen, stands_for=one_in))
        verdict = judge_case(case, pool, rules.pools)
        return abs(budget.prompt_tokens / case.prompt_tokens - 1), verdict is Verdict.MISROUTED


def run(before: Sequence[Case], after: Sequence[Case], rate: float, replicas: int) -> Row:
    """Change from one tokenizer to the other at a rate, in requests a second of all replicas."""
    fleet, errors = Fleet(Settings(), replicas, seed=1), deque[float](maxlen=_WINDOW)
    usual = worst = per_s = 0.0
    misrouted = learnt = 0
    change = max(_BEFORE, round(rate * _BEFORE_S))
    for number, case in enumerate(_requests(before, after, change)):
        fleet.now_s = number / rate
        error, is_misrouted = fleet.serve(case)
        errors.append(error)
        if number == change // 2:
            learnt = fleet.learnt
        if number == change - 1:
            usual, per_s = median(errors), 2 * rate * (fleet.learnt - learnt) / change
        since = number + 1 - change
        if since <= 0:
            continue
        misrouted += is_misrouted
        if since >= _WINDOW and since % 10 == 0:
            now = median(errors)
            worst = max(worst, now)
            if now <= _NO_WORSE * usual:
                return Row(per_s, usual, worst, since, since / rate, misrouted / since)
    return Row(per_s, usual, worst, None, None, misrouted / _AFTER)


def _requests(before: Sequence[Case], after: Sequence[Case], change: int) -> Iterator[Case]:
    yield from islice(cycle(before), change)
    yield from islice(cycle(after), _AFTER)


def _cases(tokenizer: int) -> list[Case]:
    model = Model(load_tokenizers(())[tokenizer](), TEMPLATES[tokenizer], read_texts(None, 1))
    return list(make_cases(((Traffic(),),), [model], _CASES, f"{tokenizer}"))


def main(argv: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[5, 50, 500, 5000])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 3, 20])
    options = parser.parse_args(argv)
    before, after = _cases(0), _cases(1)
    table = Table(box=SIMPLE)
    for column in ("requests/s", "replicas", *_COLUMNS):
        table.add_column(column, justify="right")
    for rate in options.rates:
        for replicas in options.replicas:
            table.add_row(f"{rate:g}", f"{replicas}", *_cells(run(before, after, rate, replicas)))
    report_console(_WIDTH).print(table)
    return 0


def _cells(row: Row) -> Iterator[str]:
    yield f"{row.learnt_per_s:.0f}"
    yield f"{row.error:.2%}"
    yield f"{row.worst:.2%}"
    yield "not" if row.requests is None else f"{row.requests}"
    yield "not" if row.seconds is None else f"{row.seconds:.1f}"
    yield f"{row.misrouted:.2%}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
