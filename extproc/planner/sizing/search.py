"""Search for the cheapest fleet: how many pools, split where, of how many GPUs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np

from extproc.planner.sizing.plans import Plan, PoolPlan
from extproc.planner.sizing.pool_model import requests_of
from extproc.planner.sizing.pool_sizing import (
    PoolLoad,
    SizedPool,
    describe,
    loaded,
    size_default,
    size_pool,
)
from extproc.planner.sizing.question import PlanError, Question, SlotRule
from extproc.planner.sizing.verdict import judge

_GRID: Final = 64  # tokens: thresholds are multiples of it
_CANDIDATES: Final = 40
_ROUNDING: Final = 1e-9  # error of a sum of weights


def plan(question: Question, max_pools: int = 2) -> Plan:
    """Return the plan with the fewest GPUs in 1 to max_pools pools.

    Raises PlanError if no instance can hold the window or no request fits it.
    """
    return Planner(question).best(max_pools)


class Planner:
    """Answers one question; sizes each pool once, however many plans contain it."""

    def __init__(self, question: Question) -> None:
        self.question = question
        traffic = question.workload
        over = 1 - traffic.share_within(question.window)
        self.over_window = over if over > _ROUNDING else 0.0
        if self.over_window > 1 - _ROUNDING:
            raise PlanError(f"no request fits a window of {question.window} tokens")
        if self.over_window:
            traffic = traffic.between(0, question.window)
        self._requests = requests_of(traffic, question.profile, question.max_num_batched_tokens)
        order = np.argsort(traffic.total, kind="stable")
        self._totals = traffic.total[order]
        self._edges = np.cumsum(traffic.weights[order])
        self._sized: dict[tuple[int, int], SizedPool] = {}

    @property
    def candidates(self) -> tuple[int, ...]:
        """Thresholds to try: quantiles of the workload, denser towards the tail."""
        # Every third candidate halves the rest: 50 % of the requests, 75 %, ... 99.90 % (the 30th),
        # 99.99 % (the 40th). The series begins at 20.6 %, hence the tenths below one half.
        shares = 1 - 2.0 ** (-np.arange(1, _CANDIDATES + 1) / 3)
        rows = np.searchsorted(self._edges, np.concatenate([shares, np.arange(0.1, 0.5, 0.1)]))
        totals = self._totals[np.minimum(rows, self._edges.size - 1)]
        rounded = {math.ceil(total / _GRID) * _GRID for total in totals.tolist()}
        return tuple(sorted(t for t in rounded if t < self.question.window))

    def share_within(self, tokens: int) -> float:
        """Return the share of requests up to `tokens`, among those that fit the window."""
        row = int(np.searchsorted(self._totals, tokens, side="right"))
        return float(self._edges[row - 1]) if row else 0.0

    def homogeneous(self) -> Plan:
        """Return the plan of one pool with max_num_seqs by the rule of the question."""
        return self._plan([self._size(0, self.question.window)])

    def packed(self, rule: SlotRule) -> Plan:
        """Return the plan of one pool with max_num_seqs by this rule."""
        if rule is self.question.slot_rule:
            return self.homogeneous()
        return Planner(replace(self.question, slot_rule=rule)).homogeneous()

    @cached_property
    def as_started(self) -> Plan:
        """The plan of one pool of servers that are started without max_num_seqs."""
        return self.of((), (self.question.default_num_seqs,))

    @cached_property
    def one_pool(self) -> Plan:
        """The best plan of one pool, which every split has to beat; the default wins a tie."""
        return min(self.as_started, self.packed(SlotRule.OCCUPANCY), key=_rank)

    def at(self, thresholds: tuple[int, ...]) -> Plan:
        """Return the plan split at these thresholds. Raises PlanError."""
        return self._compared([self._size(*pair) for pair in self._ranges(thresholds)])

    def of(self, thresholds: tuple[int, ...], max_num_seqs: Sequence[int]) -> Plan:
        """Return the plan split at these thresholds into pools of these max_num_seqs.

        Raises PlanError.
        """
        ranges = zip(self._ranges(thresholds), max_num_seqs, strict=True)
        return self._plan([size_default(self._load(*pair), seqs) for pair, seqs in ranges])

    def pool(self, above: int, up_to: int) -> PoolPlan:
        """Return the pool of the requests between two thresholds. Raises PlanError."""
        return describe(self._size(above, up_to), "pool")

    def judged(self, plan: Plan) -> Plan:
        """Return the plan beside the best one pool, with its verdict; one pool has none."""
        if not plan.thresholds:
            return plan
        plan = replace(plan, against=self.one_pool)
        return replace(plan, verdict=judge(plan, self.question, self.as_started))

    def under(self, plan: Plan) -> Plan:
        """Return the pools of a plan, unchanged in size, under the workload of this question."""
        ranges = self._ranges(plan.thresholds)
        pools = zip(plan.pools, ranges, strict=True)
        return self._plan(
            [loaded(self._load(*pair), pool.max_num_seqs, pool.instances) for pool, pair in pools]
        )

    def best_of(self, pools: int) -> Plan:
        """Return the best plan of `pools` pools, or of fewer if there are too few thresholds.

        Dynamic programming over the candidates: the size of a pool depends on its two thresholds.
        """
        window = self.question.window
        ends = self.candidates
        # best[e]: the cheapest pools that serve all requests up to e. A round adds one pool:
        # best[2560] is then the cheapest of best[s] + the pool from s to 2560 over all s < 2560. 43
        # candidates make 123,410 plans of 5 pools; a round compares at most 903 pools.
        best: dict[int, tuple[SizedPool, ...]] = {0: ()}
        for _ in range(min(pools - 1, len(ends))):
            best = {
                end: min((self._with(best, start, end) for start in best if start < end), key=_cost)
                for end in ends
                if end > min(best)
            }
        return self._compared(min((self._with(best, start, window) for start in best), key=_cost))

    def _with(
        self, best: Mapping[int, tuple[SizedPool, ...]], start: int, end: int
    ) -> tuple[SizedPool, ...]:
        return (*best[start], self._size(start, end))

    def best(self, max_pools: int) -> Plan:
        """Return the best plan of 1 to max_pools pools, with verdict; fewer pools win a tie."""
        splits = [self.best_of(count) for count in range(2, max_pools + 1)]
        chosen = min((self.one_pool, *splits), key=_rank)
        # Where one pool is best, its verdict says why the best split is not.
        if chosen.thresholds or not splits:
            return self.judged(chosen)
        return replace(chosen, verdict=self.judged(splits[0]).verdict)

    def curve(self) -> tuple[Plan, ...]:
        """Return the plan of two pools for each candidate threshold."""
        return tuple(self.at((threshold,)) for threshold in self.candidates)

    def _ranges(self, thresholds: tuple[int, ...]) -> list[tuple[int, int]]:
        edges = (0, *thresholds, self.question.window)
        if any(low >= high for low, high in pairwise(edges)):
            text = f"allowed: rising, from 1 to below the window of {self.question.window} tokens"
            raise PlanError(f"--threshold: {', '.join(map(str, thresholds))}; {text}")
        return list(pairwise(edges))

    def _size(self, above: int, up_to: int) -> SizedPool:
        if (above, up_to) not in self._sized:
            self._sized[above, up_to] = size_pool(self._load(above, up_to))
        return self._sized[above, up_to]

    def _load(self, above: int, up_to: int) -> PoolLoad:
        """Return the load of the pool between two thresholds."""
        question = self.question
        # Both pools count what is routed wrongly between them: a misrouted request is served twice
        # (see pool_sizing), and keeping over-routed ones in the smaller pool too is conservative.
        low = self.share_within(above) - question.estimator.at(above).over_routed if above else 0.0
        high = self.share_within(up_to) + question.estimator.at(up_to).misrouted
        low, high = max(0.0, low), min(1.0, high) if up_to < question.window else 1.0
        share = max(0.0, high - low)
        return PoolLoad(
            question=question,
            objectives=question.objectives_of(above, up_to),
            requests=self._requests.between(low, high),
            # A window above the threshold would cost slots (SlotRule.WINDOW) and serve no request.
            window=up_to,
            sent=max(0.0, self._sent_within(up_to) - self._sent_within(above)),
            share=share,
            rate_per_s=question.rate_per_s * (1 - self.over_window) * share,
        )

    def _sent_within(self, threshold: int) -> float:
        """Return the share of requests that is estimated to have at most so many tokens."""
        if not 0 < threshold < self.question.window:
            return float(threshold > 0)
        error = self.question.estimator.at(threshold)
        estimated = self.share_within(threshold) + error.misrouted - error.over_routed
        return min(1.0, max(0.0, estimated))

    def _plan(self, pools: Sequence[SizedPool]) -> Plan:
        given = self.question.names
        names = given if len(given) == len(pools) else pool_names(len(pools))
        return Plan(
            pools=tuple(describe(pool, name) for pool, name in zip(pools, names, strict=True)),
            rate_per_s=self.question.rate_per_s * (1 - self.over_window),
            price_per_gpu_h=self.question.profile.price_per_gpu_h,
            hours_per_year=self.question.hours_per_year,
            over_window=self.over_window,
        )

    def _compared(self, pools: Sequence[SizedPool]) -> Plan:
        plan = self._plan(pools)
        return replace(plan, against=self.homogeneous()) if len(pools) > 1 else plan


def _cost(pools: Sequence[SizedPool]) -> tuple[int, int]:
    """Order plans: first by pools that miss the objectives, then by GPUs."""
    # Both counts add up over pools, so every part of a best fleet is a best part (best_of).
    return sum(not pool.meets for pool in pools), sum(pool.gpus for pool in pools)


def _rank(plan: Plan) -> tuple[bool, int]:
    return not plan.meets, plan.gpus


def pool_names(pools: int) -> tuple[str, ...]:
    """Name this many pools, in ascending order of their windows."""
    if pools <= 3:
        return ((), ("all",), ("short", "long"), ("short", "middle", "long"))[pools]
    return ("short", *(f"middle-{number}" for number in range(1, pools - 1)), "long")
