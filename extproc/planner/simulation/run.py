"""Simulate a fleet event by event: arrival, choice of a pool, balancing, engines, answer, learning.

Invariant: nothing depends on the future. An answer teaches the rule, and leaves the load, when its
last token is out. So time never runs back and a run is a function of its seed.

A pool balances as Envoy's LEAST_REQUEST does: of `choices` instances drawn at random it takes the
one with the fewest requests. If a pool refuses a request because the prompt fills the window, the
request goes to the largest pool at once, as with Envoy's retry; the service sees only the second
answer.
"""

import heapq
import random
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from extproc.budget.values import Outcome
from extproc.planner.simulation.fleet import FleetSpec, PoolSpec
from extproc.planner.simulation.records import Fate, Floats, Ints, Records
from extproc.planner.simulation.rules import Rule
from extproc.planner.traffic.arrivals import Incoming
from extproc.routing.load.report import Report
from extproc.simulator.engine import Engine, Event, EventKind, NeverFitsError, Sequence

_NEVER: Final = -1
_STRIDE: Final = 1000  # arrivals between two progress reports


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """Settings of a run other than fleet, arrivals and rule."""

    seed: int = 0
    """Seed of the balancer's draws."""
    choices: int = 2
    """Instances that the balancer compares: Envoy's choice_count."""
    retry: bool = True
    """Whether a request that its pool refuses goes to the largest pool."""
    drain_s: float = float("inf")
    """Seconds from the last arrival to the end of the run; open requests are then unfinished."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told, every so many nanoseconds, what each instance of each pool reports."""

    every_ns: int
    told: Callable[[int, list[list[Report]]], None]


class _Instance:
    __slots__ = ("active", "due_ns", "engine", "finished", "pool")

    def __init__(self, pool: int, spec: PoolSpec) -> None:
        self.pool = pool
        self.engine = Engine(spec.engine, spec.profile)
        self.active = 0  # open requests
        self.finished = 0
        self.due_ns = _NEVER


class _Job(Sequence):
    __slots__ = ("incoming", "index", "instance")

    def __init__(self, index: int, incoming: Incoming, instance: _Instance) -> None:
        super().__init__(incoming.prompt_tokens, incoming.wanted_tokens, incoming.prefix)
        self.index = index
        self.incoming = incoming
        self.instance = instance


class _RecordColumns:
    """Columns of Records in the making; times in nanoseconds, _NEVER until they are known."""

    def __init__(self) -> None:
        self.at_ns, self.admitted_ns, self.first_ns, self.end_ns = (array("q") for _ in range(4))
        self.prompt, self.needed, self.tokens, self.reused = (array("q") for _ in range(4))
        self.pool, self.chosen, self.fate, self.preemptions = (array("q") for _ in range(4))

    def add(self, incoming: Incoming, pool: int) -> int:
        """Add a row for an arrival and return its index."""
        self.at_ns.append(incoming.at_ns)
        self.prompt.append(incoming.prompt_tokens)
        self.needed.append(incoming.needed_tokens)
        for times in (self.admitted_ns, self.first_ns, self.end_ns):
            times.append(_NEVER)
        for counts in (self.tokens, self.reused, self.preemptions):
            counts.append(0)
        self.pool.append(pool)
        self.chosen.append(pool)
        self.fate.append(Fate.UNFINISHED)
        return len(self.at_ns) - 1


class _FleetRun:
    def __init__(self, fleet: FleetSpec, rule: Rule, conduct: Conduct) -> None:
        self._rule, self._conduct = rule, conduct
        self._rng = random.Random(conduct.seed)  # noqa: S311 - reproducible, not secret
        self._pools = [
            [_Instance(index, spec) for _ in range(spec.instances)]
            for index, spec in enumerate(fleet.pools)
        ]
        self._windows = [spec.engine.max_model_len for spec in fleet.pools]
        self._due: list[tuple[int, int, _Instance]] = []  # heap, stale entries included
        self._pushed = 0  # orders entries of the same time: instances cannot be compared
        # An iteration that has begun may end after now. Its answers are known but wait here, or the
        # rule would learn from the future.
        self._ends: list[tuple[int, int, _Job]] = []  # heap of answers whose end is still ahead
        self.columns = _RecordColumns()

    def take(self, incoming: Incoming) -> None:
        """Advance to the arrival of a request and send it to a pool."""
        self.catch_up(incoming.at_ns)
        pool = self._rule.choose(incoming)
        index = self.columns.add(incoming, pool)
        if self._send(index, incoming, pool):
            return
        if pool < len(self._pools) - 1 and self._conduct.retry:
            pool = self.columns.pool[index] = len(self._pools) - 1
            if self._send(index, incoming, pool):
                return
        self.columns.fate[index] = Fate.REJECTED
        self._rule.learn(incoming, pool, Outcome.REFUSED, 0)

    def catch_up(self, now_ns: int) -> None:
        """Process events up to now."""
        while self._due and self._due[0][0] <= now_ns:
            due_ns, _, instance = heapq.heappop(self._due)
            # A heap cannot move an entry: one whose time the instance has since changed is skipped.
            if due_ns == instance.due_ns:
                self._advance(instance, now_ns)
        while self._ends and self._ends[0][0] <= now_ns:
            self._end(heapq.heappop(self._ends)[2])

    def report(self, now_ns: int) -> list[list[Report]]:
        """Return what each instance of each pool reports now."""
        for instance in (each for pool in self._pools for each in pool):
            self._advance(instance, now_ns)
        self.catch_up(now_ns)
        return [[_report(instance) for instance in pool] for pool in self._pools]

    def drain(self, until_ns: float) -> None:
        """Process events after the last arrival, up to a time that may be infinite."""
        while self._due and self._due[0][0] <= until_ns:
            self.catch_up(self._due[0][0])
        while self._ends and self._ends[0][0] <= until_ns:
            self._end(heapq.heappop(self._ends)[2])

    def _send(self, index: int, incoming: Incoming, pool: int) -> bool:
        """Send a request to an instance of a pool; return False if the instance refuses it."""
        instance = self._balance(self._pools[pool])
        job = _Job(index, incoming, instance)
        # Up to the arrival first: the scheduler reads its queue between two iterations.
        self._note(instance.engine.advance(incoming.at_ns))
        try:
            instance.engine.submit(job)
        except NeverFitsError:
            return False
        finally:
            self._arm(instance)
        instance.active += 1
        return True

    def _balance(self, instances: list[_Instance]) -> _Instance:
        choices = self._conduct.choices
        if len(instances) <= choices:
            return min(instances, key=_active)
        # Envoy draws with replacement.
        drawn = [instances[int(self._rng.random() * len(instances))] for _ in range(choices)]
        return min(drawn, key=_active)

    def _advance(self, instance: _Instance, now_ns: int) -> None:
        self._note(instance.engine.advance(now_ns))
        self._arm(instance)

    def _arm(self, instance: _Instance) -> None:
        """Schedule the instance's next event: the earliest end of one of its sequences."""
        due_ns = instance.engine.earliest_end_ns()
        if due_ns is None:
            instance.due_ns = _NEVER
        elif due_ns != instance.due_ns:
            instance.due_ns = due_ns
            self._pushed += 1
            heapq.heappush(self._due, (due_ns, self._pushed, instance))

    def _note(self, events: list[Event]) -> None:
        columns = self.columns
        for at_ns, kind, sequence in events:
            job = cast("_Job", sequence)
            if kind is EventKind.FINISHED:
                heapq.heappush(self._ends, (at_ns, job.index, job))
                columns.end_ns[job.index] = at_ns
            elif kind is EventKind.FIRST_TOKEN:
                columns.first_ns[job.index] = at_ns
            elif kind is EventKind.PREEMPTED:
                columns.preemptions[job.index] += 1
            elif columns.admitted_ns[job.index] == _NEVER:
                columns.admitted_ns[job.index] = at_ns

    def _end(self, job: _Job) -> None:
        """Record a finished answer and let the rule learn from it."""
        columns, index, incoming = self.columns, job.index, job.incoming
        pool = job.instance.pool
        job.instance.active -= 1
        job.instance.finished += 1
        columns.tokens[index], columns.reused[index] = job.output_tokens, job.reused
        if job.output_tokens < incoming.wanted_tokens:
            columns.fate[index] = Fate.CLAMPED
        else:
            moved = columns.chosen[index] != pool
            columns.fate[index] = Fate.FAILED_OVER if moved else Fate.COMPLETED
        # finish_reason is "length" for the client's limit and for the window alike.
        cut = job.output_tokens in (incoming.max_tokens, self._windows[pool] - job.prompt_tokens)
        outcome = Outcome.CUT if cut else Outcome.COMPLETE
        self._rule.learn(incoming, columns.chosen[index], outcome, job.output_tokens)


def simulate(
    fleet: FleetSpec,
    arrivals: Iterable[Incoming],
    rule: Rule,
    conduct: Conduct,
    progress: Callable[[int], None] = lambda _: None,
    watch: Watch | None = None,
) -> Records:
    """Run a fleet until every request is answered or the drain is over.

    arrivals: in order of time. progress: called with the number of arrivals since the last call.
    watch: is told of the load until the last arrival.
    """
    run = _FleetRun(fleet, rule, conduct)
    count = last_ns = due_ns = 0
    for count, incoming in enumerate(arrivals, 1):
        while watch and due_ns <= incoming.at_ns:
            watch.told(due_ns, run.report(due_ns))
            due_ns += watch.every_ns
        run.take(incoming)
        last_ns = incoming.at_ns
        if count % _STRIDE == 0:
            progress(_STRIDE)
    run.drain(last_ns + conduct.drain_s * 1e9)
    progress(count % _STRIDE)
    return _records(fleet, run.columns)


def _records(fleet: FleetSpec, columns: _RecordColumns) -> Records:
    done = np.asarray(columns.fate) != Fate.UNFINISHED
    return Records(
        fleet=fleet,
        at_s=np.asarray(columns.at_ns) / 1e9,
        admitted_s=_seconds(columns.admitted_ns),
        first_s=_seconds(columns.first_ns),
        end_s=np.where(done, _seconds(columns.end_ns), np.inf),
        prompt=_whole(columns.prompt),
        needed=_whole(columns.needed),
        tokens=_whole(columns.tokens),
        reused=_whole(columns.reused),
        pool=_whole(columns.pool),
        chosen=_whole(columns.chosen),
        fate=_whole(columns.fate),
        preemptions=_whole(columns.preemptions),
    )


def _seconds(times_ns: "array[int]") -> Floats:
    found = np.asarray(times_ns) / 1e9
    return np.where(found < 0, np.inf, found)


def _whole(counts: "array[int]") -> Ints:
    return np.asarray(counts, dtype=np.int64)


def _report(instance: _Instance) -> Report:
    engine = instance.engine
    return Report(
        running=engine.running,
        waiting=engine.waiting,
        finished=instance.finished,
        kv_usage=engine.usage,
        preemptions=engine.preemptions,
    )


def _active(instance: _Instance) -> int:
    return instance.active
