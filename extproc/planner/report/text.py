"""A study as tables for a terminal or a file."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from extproc.planner.report.layout import make_table, seconds
from extproc.planner.report.tails import advise, tail_tables
from extproc.planner.sizing.plans import Plan, PoolPlan, count_gpus
from extproc.planner.sizing.question import Question, SlotRule
from extproc.planner.sizing.sensitivity import Change
from extproc.planner.sizing.study import Study
from extproc.planner.sizing.verdict import sequences

if TYPE_CHECKING:
    from extproc.planner.proof.tails import Tails

_ROWS: Final = 12  # of the threshold table, at most


def print_study(
    console: Console, done: Study, notes: Sequence[str], tails: "Tails | None" = None
) -> None:
    """Print what to do, the plan, its alternatives and its sensitivities."""
    console.print(headline(done, tails), highlight=False, markup=False)
    console.print()
    for line in (
        *introduction(done.question),
        *(f"Note: {note}." for note in notes),
    ):
        console.print(line, highlight=False, markup=False)
    for table in tables(done, tails):
        console.print()
        console.print(table)


def introduction(question: Question) -> Iterator[str]:
    """Yield sentences that state the question."""
    goals, profile, long = question.objectives, question.profile, question.long_objectives
    rule = "at full length" if question.slot_rule is SlotRule.WINDOW else "at actual lengths"
    usd = profile.price_per_gpu_h
    price = f"at ${usd:g} per GPU and hour" if usd else "without a price (--price states one)"
    yield f"{question.workload.name}: {question.rate_per_s:g} requests/s on {profile.name}."
    yield (
        f"An instance: {profile.gpus} GPU {price}, "
        f"{question.hours_per_year:g} hours a year; a KV cache of {profile.kv_tokens} tokens. "
        f"max_num_seqs: as many sequences as fit {rule}."
    )
    yield (
        f"Objectives in each pool: P99 TTFT {seconds(goals.ttft_p99_s)}"
        f"{f' ({seconds(long.ttft_p99_s)} above the smallest)' if long else ''}, P99 TPOT "
        f"{seconds(goals.tpot_p99_s)}, utilisation {goals.utilisation:.0%}. "
        f"Routed by the {question.estimator.name} estimator, with its errors."
    )


def headline(done: Study, tails: "Tails | None" = None) -> str:
    """Return the recommendation, and why."""
    if tails:
        return advise(tails)
    return f"{done.plan.verdict or one_pool(done)}{_capped(done)}{_hurried(done)}"


def _capped(done: Study) -> str:
    """Say what the cap on the utilisation costs."""
    free, plan = done.uncapped, done.plan
    if not (plan.meets and free.meets and free.gpus < plan.gpus):
        return ""
    load = max(pool.utilisation for pool in free.pools)
    return (
        f" The cap of {done.question.objectives.utilisation:.0%} on the load decides: both latency "
        f"objectives hold with {count_gpus(free.gpus)}, at {load:.0%} (--utilisation)."
    )


def _hurried(done: Study) -> str:
    """Say what the objective of P99 TTFT costs, and one that needs fewer GPUs."""
    looser, plan = done.looser, done.plan
    if not (plan.meets and looser.meets and looser.gpus < plan.gpus):
        return ""
    load = max(pool.utilisation for pool in plan.pools[1:] or plan.pools)
    late_s = max(pool.ttft_p99_s for pool in looser.pools[1:] or looser.pools)
    goals = done.question.largest_objectives(plan.thresholds)
    where = f", split at {', '.join(map(str, plan.thresholds))}" if plan.thresholds else ""
    return (
        f" The P99 TTFT objective of {seconds(goals.ttft_p99_s)} decides, at a load of {load:.0%}: "
        f"with --slo-long-ttft-ms {_round_up(1e3 * late_s)} all objectives hold with "
        f"{count_gpus(looser.gpus)}{where}."
    )


def _round_up(ms: float) -> int:
    """Return a time rounded up to two digits, or to whole milliseconds."""
    step = 10.0 ** max(0, math.floor(math.log10(ms)) - 1)
    return math.ceil(ms / step) * int(step)


def one_pool(done: Study) -> str:
    """Return a sentence on what a plan of one pool needs."""
    plan = done.plan
    fails = "" if plan.meets else " It misses the objectives at any size."
    seqs = sequences(plan, done.question, by_default=plan.pools == done.by_default.pools)
    return f"One pool with max_num_seqs {seqs}: {count_gpus(plan.gpus)}{plan.yearly}.{fails}"


def tables(done: Study, tails: "Tails | None" = None) -> Iterator[Table]:
    """Yield the tables of a study: tails if they were studied, then the plan by formula."""
    if tails:
        yield from tail_tables(tails)
    yield _pools(done)
    yield _counts(done)
    if done.curve:
        yield _curve(done.curve)
    if done.drift:
        yield _changes("If the share of short requests shifts", "shift", done.drift)
    if done.errors:
        yield _changes("With other estimators", "estimator", done.errors)
    if done.capacity:
        yield _capacity(done.capacity)


def _pools(done: Study) -> Table:
    table = make_table(
        "Pools",
        *("pool", "window", "max seqs", "share", "req/s each", "instances", "GPUs", "load"),
        *("P99 TTFT", "P99 TPOT", "holds"),
    )
    for pool in done.one_pool.pools:
        table.add_row("one pool", *_pool_cells(pool))
    for pool in done.split.pools if done.split.thresholds else ():
        table.add_row(pool.name, *_pool_cells(pool))
    return table


def _pool_cells(pool: PoolPlan) -> tuple[str, ...]:
    return (
        f"{pool.max_model_len}",
        f"{pool.max_num_seqs}",
        f"{pool.sent:.2%}",
        f"{pool.mu_per_instance:.2f}",
        f"{pool.instances}",
        f"{pool.gpus}",
        f"{pool.utilisation:.0%}",
        seconds(pool.ttft_p99_s),
        seconds(pool.tpot_p99_s),
        "yes" if pool.meets else "no",
    )


def _counts(done: Study) -> Table:
    table = make_table(
        "Fleets",
        *("pools", "max seqs", "split at", "instances", "closed form"),
        *("GPUs", "$ a year", "saving", "holds"),
    )
    started, *rest = _plan_cells(done.by_default)
    if done.by_default.pools[0].max_num_seqs < done.question.default_num_seqs:
        started += " (KV cache)"
    table.add_row(default_name(done.question), started, *rest)
    table.add_row("1, by actual lengths", *_plan_cells(done.by_lengths))
    for plan in done.splits:
        table.add_row(f"{len(plan.pools)}", *_plan_cells(plan))
    table.add_row("1, the papers' KV / window", *_plan_cells(done.by_window))
    return table


def default_name(question: Question) -> str:
    """Return the name of one pool of servers that are started without max_num_seqs."""
    return f"1, {question.profile.whose_default} ({question.default_num_seqs})"


def _plan_cells(plan: Plan) -> tuple[str, ...]:
    return (
        ", ".join(str(pool.max_num_seqs) for pool in plan.pools),
        ", ".join(map(str, plan.thresholds)) or "-",
        f"{plan.instances}",
        f"{plan.closed_form}",
        f"{plan.gpus}",
        f"{plan.usd_per_year:,.0f}" if plan.price_per_gpu_h else "-",
        f"{plan.saving:.1%}" if plan.against else "-",
        "yes" if plan.meets else "no",
    )


def _curve(curve: Sequence[Plan]) -> Table:
    table = make_table("Two pools, by threshold", "threshold", "share", "GPUs", "saving", "holds")
    step = math.ceil(len(curve) / _ROWS)
    for plan in curve[step // 2 :: step]:
        short = plan.pools[0]
        holds = "yes" if plan.meets else "no"
        row = (f"{short.sent:.2%}", f"{plan.gpus}", f"{plan.saving:.1%}", holds)
        table.add_row(f"{short.threshold}", *row)
    return table


def _capacity(changes: Sequence[Change]) -> Table:
    columns = ("capacity", "load", "P99 TTFT", "P99 TPOT", "holds", "GPUs needed")
    table = make_table("If the capacity were 10 % less or more", *columns)
    for change in changes:
        pools = change.held.pools
        table.add_row(
            change.name,
            ", ".join(f"{pool.utilisation:.0%}" for pool in pools),
            ", ".join(seconds(pool.ttft_p99_s) for pool in pools),
            ", ".join(seconds(pool.tpot_p99_s) for pool in pools),
            "yes" if change.held.meets else "no",
            _needed(change),
        )
    return table


def _needed(change: Change) -> str:
    return f"{change.resized.gpus}" if change.resized.meets else "none"


def _changes(title: str, name: str, changes: Sequence[Change]) -> Table:
    table = make_table(title, name, "short", "load", "holds", "GPUs needed")
    for change in changes:
        table.add_row(
            change.name,
            f"{change.share:.2%}",
            ", ".join(f"{pool.utilisation:.0%}" for pool in change.held.pools),
            "yes" if change.held.meets else "no",
            _needed(change),
        )
    return table
