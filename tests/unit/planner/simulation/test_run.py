"""Simulated fleets: what is kept whatever comes, and single fates."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.budget.values import Outcome
from extproc.planner.simulation.fleet import FleetSpec
from extproc.planner.simulation.records import Fate, Records
from extproc.planner.simulation.rules import RuleName, make_rule
from extproc.planner.simulation.run import Conduct, Watch, _FleetRun, simulate
from extproc.planner.sizing.queueing import Queue, erlang_c, mean_wait_s
from extproc.planner.traffic.arrivals import Incoming, arrive, draw_limits
from extproc.planner.traffic.lengths import equally_weighted, poisson
from extproc.routing.load.report import Report
from extproc.simulator.engine import Engine, EventKind, Sequence
from extproc.simulator.engine.instance import EngineConfig, Profile
from tests.support.small_fleets import TWO, incoming, pool

ROWS = st.lists(
    st.tuples(
        st.floats(0, 0.5).map(lambda s: round(s, 3)), st.integers(1, 300), st.integers(1, 120)
    ),
    min_size=1,
    max_size=40,
)
ONCE = Conduct()
RULES = st.sampled_from(RuleName)


class Fixed:
    """Sends everything to one pool, and writes down what it is told."""

    def __init__(self, pool: int = 0) -> None:
        self.pool = pool
        self.told = list[tuple[str, int, object]]()

    def choose(self, incoming: Incoming) -> int:
        self.told.append(("chosen", incoming.at_ns, None))
        return self.pool

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        self.told.append(("learnt", incoming.at_ns, outcome))


def run(
    rows: list[tuple[float, int, int]],
    name: RuleName = RuleName.DUALPOOL,
    fleet: FleetSpec = TWO,
    conduct: Conduct = ONCE,
) -> Records:
    return simulate(fleet, incoming(rows), make_rule(name, fleet, 0), conduct)


def fates(records: Records) -> list[Fate]:
    return [timing.fate for timing in records.timings()]


@given(ROWS, RULES)
def test_every_arrival_has_one_fate(rows, name):
    records = run(rows, name)
    assert len(records) == len(rows)
    assert Fate.UNFINISHED not in fates(records)


@given(ROWS, RULES)
def test_time_never_goes_back(rows, name):
    records = run(rows, name)
    done = np.isfinite(records.end_s)
    for earlier, later in (
        (records.at_s, records.admitted_s),
        (records.admitted_s, records.first_s),
        (records.first_s, records.end_s),
    ):
        assert (earlier[done] <= later[done]).all()


@given(ROWS, st.integers(0, 3))
def test_a_run_is_a_function_of_its_seed(rows, seed):
    first, second = (run(rows, conduct=Conduct(seed=seed)) for _ in range(2))
    assert first.timings() == second.timings()


@given(ROWS)
def test_no_block_leaks(rows):
    whole = _FleetRun(TWO, make_rule(RuleName.DUALPOOL, TWO, 0), Conduct())
    for each in incoming(rows):
        whole.take(each)
    whole.drain(float("inf"))
    for instance in itertools.chain(*whole._pools):
        assert instance.engine.free_blocks == instance.engine.config.num_blocks
        assert (instance.active, instance.engine.running, instance.engine.waiting) == (0, 0, 0)


@settings(max_examples=200)
@given(ROWS)
def test_instances_that_are_looked_at_when_due_are_as_if_looked_at_always(rows):
    fleet = FleetSpec((pool("all", 512, instances=3, blocks=160, seqs=6),))
    records = run(rows, RuleName.HOMOGENEOUS, fleet, Conduct(choices=3))
    assert records.end_s.tolist() == looked_at_always(fleet, rows)


def looked_at_always(fleet: FleetSpec, rows: list[tuple[float, int, int]]) -> list[float]:
    """Advance every engine to every arrival, then send to the one with the fewest requests."""
    spec = fleet.pools[0]
    engines = [Engine(spec.engine, spec.profile) for _ in range(spec.instances)]
    sent = [dict[Sequence, int]() for _ in engines]
    ends = dict[Sequence, int]()
    order = list[Sequence]()
    for each in incoming(rows):
        for engine in engines:
            note(engine, each.at_ns, ends)
        active = [sum(ends.get(s, 1 << 62) > each.at_ns for s in held) for held in sent]
        chosen = active.index(min(active))
        order.append(Sequence(each.prompt_tokens, each.wanted_tokens))
        sent[chosen][order[-1]] = each.at_ns
        engines[chosen].submit(order[-1])
    for engine in engines:
        note(engine, None, ends)
    return [ends[sequence] / 1e9 for sequence in order]


def note(engine: Engine, until_ns: int | None, ends: dict[Sequence, int]) -> None:
    ends |= {e.sequence: e.at_ns for e in engine.advance(until_ns) if e.kind is EventKind.FINISHED}


def test_two_that_do_not_fit_together_both_end():
    fleet = FleetSpec((pool("all", 64, blocks=16),))  # 64 tokens; each ends with 60
    records = run([(0, 30, 31), (0, 30, 31)], RuleName.HOMOGENEOUS, fleet)
    assert fates(records) == [Fate.COMPLETED] * 2
    assert records.preemptions.sum() >= 1


def test_what_its_pool_refuses_the_largest_answers():
    rule = Fixed()
    (timing,) = simulate(TWO, incoming([(0, 100, 5)]), rule, Conduct()).timings()
    assert (timing.fate, timing.pool) == (Fate.FAILED_OVER, "long")
    assert [outcome for kind, _, outcome in rule.told if kind == "learnt"] == [Outcome.COMPLETE]


def test_without_a_retry_it_is_rejected_and_teaches_that():
    rule = Fixed()
    records = simulate(TWO, incoming([(0, 100, 5)]), rule, Conduct(retry=False))
    assert fates(records) == [Fate.REJECTED]
    assert rule.told[-1][2] is Outcome.REFUSED


def test_what_fills_every_window_is_rejected():
    (timing,) = run([(0, 300, 5)]).timings()
    assert (timing.fate, timing.ttft_s, timing.tpot_s) == (Fate.REJECTED, np.inf, np.inf)


def test_an_answer_that_a_window_cuts_is_clamped():
    (timing,) = simulate(TWO, incoming([(0, 60, 100)]), Fixed(), Conduct()).timings()
    assert (timing.fate, timing.output_tokens) == (Fate.CLAMPED, 4)


def test_a_stated_limit_that_ends_an_answer_clamps_nothing_and_teaches_a_cut():
    rule = Fixed()
    records = simulate(TWO, incoming([(0, 20, 30)], max_tokens=10), rule, Conduct())
    assert fates(records) == [Fate.COMPLETED]
    assert rule.told[-1][2] is Outcome.CUT


def test_what_is_not_done_when_the_run_ends_is_unfinished():
    records = run([(0, 20, 40)], conduct=Conduct(drain_s=0.05))
    assert fates(records) == [Fate.UNFINISHED]
    assert np.isinf(records.end_s).all()


@given(ROWS)
def test_nothing_is_learnt_before_it_has_happened(rows):
    rule = Fixed(1)
    apart = [(gap + 0.001, prompt, output) for gap, prompt, output in rows]
    records = simulate(TWO, incoming(apart), rule, Conduct())
    ends_ns = dict(zip((records.at_s * 1e9).round(), records.end_s * 1e9, strict=True))
    for index, (kind, at_ns, outcome) in enumerate(rule.told):
        later = (told[1] for told in rule.told[index:] if told[0] == "chosen")
        if kind == "learnt" and outcome is not Outcome.REFUSED:
            assert round(ends_ns[at_ns]) <= next(later, 1 << 62)


def test_a_watch_is_told_what_every_instance_reports():
    told = list[tuple[int, list[list[Report]]]]()
    watch = Watch(400_000_000, lambda at_ns, reports: told.append((at_ns, reports)))
    arrivals = incoming([(0, 4, 90), (0.01, 4, 90), (1.0, 4, 30)])
    simulate(TWO, arrivals, Fixed(), Conduct(), watch=watch)
    assert [at_ns for at_ns, _ in told] == [0, 400_000_000, 800_000_000]
    running = [[sum(report.running for report in pool) for pool in each] for _, each in told]
    assert running == [[0, 0], [2, 0], [0, 0]]
    assert [sum(report.finished for report in each[0]) for _, each in told] == [0, 0, 2]


def test_the_balancer_prefers_the_instance_with_fewer_requests():
    fleet = FleetSpec((pool("all", 64, instances=4),))
    whole = _FleetRun(fleet, Fixed(), Conduct(choices=4))
    for each in incoming([(0, 4, 30)] * 8):
        whole.take(each)
    assert [instance.active for instance in whole._pools[0]] == [2, 2, 2, 2]


def test_what_a_request_needs_is_judged_as_in_service():
    stated, unstated = (
        simulate(TWO, incoming([(0, 20, 30)], limit), Fixed(), Conduct()) for limit in (40, 0)
    )
    assert (stated.needed.tolist(), unstated.needed.tolist()) == ([60], [50])


def test_a_retry_that_the_largest_pool_refuses_is_a_rejection():
    rule = Fixed()
    records = simulate(TWO, incoming([(0, 300, 5)]), rule, Conduct())
    assert (fates(records), records.pool.tolist()) == ([Fate.REJECTED], [1])
    assert rule.told[-1][2] is Outcome.REFUSED


def test_the_largest_pool_itself_is_not_asked_twice():
    records = simulate(TWO, incoming([(0, 300, 5)]), Fixed(1), Conduct())
    assert (fates(records), records.chosen.tolist()) == ([Fate.REJECTED], [1])


def test_no_arrivals_leave_no_records():
    assert len(simulate(TWO, [], Fixed(), Conduct())) == 0


def test_records_keep_the_order_of_arrival():
    records = run([(0, 60, 100), (0.01, 10, 2), (0.01, 20, 3)])
    assert records.prompt.tolist() == [60, 10, 20]
    assert records.at_s.tolist() == pytest.approx([0, 0.01, 0.02])


def test_a_pool_is_chosen_for_every_request():
    records = simulate(TWO, incoming([(0.1, 10, 2)] * 5), Fixed(1), Conduct())
    assert records.chosen.tolist() == records.pool.tolist() == [1] * 5


def test_progress_counts_every_arrival():
    counted = list[int]()
    simulate(TWO, incoming([(0.5, 4, 2)] * 1500), Fixed(), Conduct(), counted.append)
    assert sum(counted) == 1500


def test_overhead_delays_the_first_token():
    late = FleetSpec((replace(pool("all", 64), overhead_s=0.5),))
    (plain,), (delayed,) = (
        run([(0, 4, 2)], RuleName.HOMOGENEOUS, fleet).timings()
        for fleet in (FleetSpec((pool("all", 64),)), late)
    )
    assert delayed.ttft_s == pytest.approx(plain.ttft_s + 0.5)


def test_more_instances_than_before_leave_fewer_waiting():
    rows = [(0.02, 20, 40)] * 200
    slow, fast = (
        run(rows, RuleName.HOMOGENEOUS, FleetSpec((pool("all", 64, instances=n),))) for n in (1, 8)
    )
    assert slow.ttft_s.mean() > fast.ttft_s.mean()


@settings(max_examples=5, deadline=None, derandomize=True)
@given(st.integers(1, 16), st.floats(0.5, 0.8))
def test_waits_are_those_of_erlang_where_service_is_exponential(servers, load):
    """Iterations of 1 ms whatever runs, geometric outputs of 200 tokens on average, memory for all.

    30,000 arrivals leave a mean wait uncertain by 10 to 15 % of it, and admission at the next
    iteration adds half of one.
    """
    waits, queue = exponential(servers, load, 30_000)
    assert (waits > 0.002).mean() == pytest.approx(erlang_c(servers, queue.load), abs=0.06)
    assert waits.mean() == pytest.approx(mean_wait_s(queue), rel=0.3, abs=0.002)


def exponential(servers: int, load: float, requests: int) -> tuple[np.ndarray, Queue]:
    output = np.random.default_rng(servers).geometric(1 / 200, 20_000)
    workload = equally_weighted("exponential", np.ones_like(output), output)
    rate = load * servers / (1e-3 * float(output.mean()))
    arrivals = poisson(workload, rate, requests, seed=servers)
    engine = EngineConfig(
        max_model_len=8192,
        max_num_seqs=servers,
        max_num_batched_tokens=servers,
        num_blocks=512 * servers,
    )
    profile = Profile(weights_ms=1.0, sequence_ms=0.0, chunk_tokens=servers)
    spec = replace(pool("all", 64), engine=engine, profile=profile, threshold=8192)
    fleet = FleetSpec((spec,))
    limits = draw_limits(arrivals, 0, stated=0)
    rule = make_rule(RuleName.HOMOGENEOUS, fleet, 0)
    records = simulate(fleet, arrive(arrivals, limits, 0), rule, Conduct())
    drawn_s = 1e-3 * float(arrivals.output.mean())
    queue = Queue(servers=servers, rate_per_s=arrivals.rate, service_s=drawn_s)
    return records.admitted_s - records.at_s, queue


def test_the_rules_are_told_apart_by_what_they_choose():
    rows = [(0.1, prompt, 40) for prompt in (10, 40, 200)] * 20
    pools = {name: Counter(t.pool for t in run(rows, name).timings()) for name in RuleName}
    assert pools[RuleName.INPUT_LENGTH] == {"short": 40, "long": 20}
    assert pools[RuleName.ORACLE] == {"short": 20, "long": 40}
