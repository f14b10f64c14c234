"""A study as JSON: unrounded figures and the question they answer."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from extproc.planner.report.tails import tails_json
from extproc.planner.sizing.plans import Plan
from extproc.planner.sizing.question import Question
from extproc.planner.sizing.sensitivity import Change
from extproc.planner.sizing.study import Study

if TYPE_CHECKING:
    from extproc.planner.proof.tails import Tails

Json = dict[str, object]


def as_json(done: Study, notes: Sequence[str], tails: "Tails | None" = None) -> Json:
    """Return the content of `--json`: seconds, tokens, USD, shares from 0 to 1."""
    return {
        "question": _question(done.question, notes),
        "plan": _plan(done.plan),
        "one_pool": _plan(done.one_pool),
        "one_pool_by_default": _plan(done.by_default),
        "one_pool_by_lengths": _plan(done.by_lengths),
        "one_pool_by_window": _plan(done.by_window),
        "splits": [_plan(plan) for plan in done.splits],
        "thresholds": [_plan(plan) for plan in done.curve],
        "tails": tails_json(tails) if tails else None,
        "drift": [_change(change) for change in done.drift],
        "estimators": [_change(change) for change in done.errors],
        "uncapped": _plan(done.uncapped),
        "looser_ttft": _plan(done.looser),
        "capacity": [_change(change) for change in done.capacity],
    }


def _question(question: Question, notes: Sequence[str]) -> Json:
    return {
        "workload": question.workload.name,
        "notes": list(notes),
        "rate_per_s": question.rate_per_s,
        "profile": asdict(question.profile),
        "window": question.window,
        "objectives": asdict(question.objectives),
        "long_objectives": asdict(question.long_objectives) if question.long_objectives else None,
        "estimator": question.estimator.name,
        "slots": question.slot_rule.value,
        "max_num_seqs": question.max_num_seqs,
        "max_num_batched_tokens": question.max_num_batched_tokens,
        "hours_per_year": question.hours_per_year,
    }


def _plan(plan: Plan) -> Json:
    return {
        "thresholds": list(plan.thresholds),
        "pools": [asdict(pool) for pool in plan.pools],
        "instances": plan.instances,
        "gpus": plan.gpus,
        "usd_per_year": plan.usd_per_year,
        "saving": plan.saving,
        "closed_form_instances": plan.closed_form,
        "meets": plan.meets,
        "over_window": plan.over_window,
        "verdict": plan.verdict,
    }


def _change(change: Change) -> Json:
    return {
        "name": change.name,
        "share": change.share,
        "holds": change.held.meets,
        "utilisation": [pool.utilisation for pool in change.held.pools],
        "resized_gpus": change.resized.gpus,
        "resized_instances": change.resized.instances,
    }
