"""Renders the demo's report as tables and as JSON."""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from extproc.local.faults import Fault
from extproc.local.replicas import Replicas
from extproc.local.routing_fit import RoutingFit
from extproc.local.tally import Report

_FAULTS_SHOWN = 5


def print_report(console: Console, report: Report) -> None:
    """Print the whole report."""
    console.print(_pool_table(report))
    console.print(_pace_table(report))
    console.print(_category_table(report))
    for line in _lines(report):
        console.print(line, highlight=False, markup=False)


def to_json(report: Report) -> str:
    """Return the report as JSON: its fields and the figures derived from them; nan is null."""
    fields = dataclasses.asdict(report)
    for category, figures in zip(fields["categories"], report.categories, strict=True):
        category["error"] = figures.error
    fields["fit"]["misrouted"] = report.fit.misrouted
    return json.dumps(_without_nan(fields), indent=2)


def _without_nan(value: object) -> object:
    match value:
        # json.dumps would write NaN, which is no JSON.
        case float() if math.isnan(value):
            return None
        case dict():
            return {key: _without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_nan(item) for item in value]
        case _:
            return value


def _pool_table(report: Report) -> Table:
    table = _table("Pools", "pool", "window", "requests", "reasons", "refused", "preempted")
    for pool in report.pools:
        table.add_row(
            pool.name,
            str(pool.max_model_len),
            str(pool.requests),
            ", ".join(f"{reason} {n}" for reason, n in sorted(pool.reasons.items())),
            str(pool.refused),
            "-" if pool.preemptions is None else str(pool.preemptions),
        )
    return table


def _pace_table(report: Report) -> Table:
    table = _table(
        "Tokens, and latency of streamed answers",
        "pool", "prompt", "output", "TTFT P50 s", "P99 s", "TPOT P50 ms", "P99 ms",
    )  # fmt: skip
    for pool in report.pools:
        table.add_row(
            pool.name,
            str(pool.prompt_tokens),
            str(pool.completion_tokens),
            _text(pool.ttft_p50_s, 2),
            _text(pool.ttft_p99_s, 2),
            _text(1000 * pool.tpot_p50_s, 1),
            _text(1000 * pool.tpot_p99_s, 1),
        )
    return table


def _category_table(report: Report) -> Table:
    table = _table(
        "Bytes per token: learnt by the service, and true of this traffic",
        "category", "sent", "samples", "learnt", "true", "error", "text only", "off by",
    )  # fmt: skip
    for category in report.categories:
        table.add_row(
            category.name,
            str(category.requests),
            str(category.samples),
            _text(category.learnt, 2),
            _text(category.true, 2),
            "-" if math.isnan(category.error) else f"{category.error:+.1%}",
            _text(category.without_template, 2),
            "-" if math.isnan(category.off_by) else f"{category.off_by:.1%}",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        left = column in {"pool", "category", "reasons"}
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    return table


def _text(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _lines(report: Report) -> Iterator[str]:
    kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(report.kinds.items()))
    yield (
        f"Traffic: {report.requests} requests in {report.elapsed_s:.0f} s ({kinds}); "
        f"{report.streamed} streamed, {report.with_usage} with usage in the answer, "
        f"{report.with_limit} with a stated output limit, {report.several_sequences} with several "
        "sequences, judged by the largest."
    )
    yield from _fit_lines(report.fit)
    yield f"Lost: {len(report.lost)} of {report.requests} answers.{_listed(report.lost)}"
    yield from _recorded_lines(report) if report.recorded else _outside_lines(report)
    if report.replicas:
        yield _replicas_line(report.replicas)
    yield _split_line(report)
    if report.simulated:
        yield (
            "The pools are simulated: a real tokenizer, and an engine model in place of GPUs, "
            "which all times and preemptions come from."
        )
    else:
        yield "The pools are real servers."


def _recorded_lines(report: Report) -> Iterator[str]:
    yield (
        f"Altered: {len(report.altered)} of {report.requests}, by SHA-256 of every request and "
        f"answer on both sides of Envoy.{_listed(report.altered)}"
    )
    yield (
        f"Latency added by the service, measured by Envoy over {report.added_ms.count} "
        f"requests: P50 {_text(report.added_ms.p50, 2)} ms, "
        f"P99 {_text(report.added_ms.p99, 2)} ms."
    )


def _outside_lines(report: Report) -> Iterator[str]:
    yield (
        f"Altered: {len(report.altered)} of {report.requests}, as far as the answers show: usage, "
        f"finish_reason and length compared with the request.{_listed(report.altered)}"
    )
    yield (
        "Not visible from outside the stack: what the pools received and answered, their "
        "preemptions, and Envoy's access log with the latency that the service adds."
    )


def _replicas_line(replicas: Replicas) -> str:
    agree = "all hold the same" if replicas.equal else "they do not hold the same"
    return f"Replicas: {replicas.answered} of {replicas.count} answered; {agree}."


def _fit_lines(fit: RoutingFit) -> Iterator[str]:
    known = max(1, fit.known)
    yield (
        f"Misrouted: {fit.misrouted} of {fit.known} ({fit.misrouted / known:.2%}): "
        f"{fit.refused} refused, {fit.clamped} clamped, {fit.harmless} harmless."
    )
    yield (
        f"Over-routed: {fit.over_routed} of {fit.known} ({fit.over_routed / known:.2%}). "
        f"Too large for every pool: {fit.too_large}. Unknown: {fit.unknown}."
    )


def _listed(faults: Sequence[Fault]) -> str:
    shown = "".join(f"\n    {fault.request_id}: {fault.what}" for fault in faults[:_FAULTS_SHOWN])
    left = len(faults) - _FAULTS_SHOWN
    return shown + (f"\n    and {left} more" if left > 0 else "")


def _split_line(report: Report) -> str:
    return (
        f"Short: {report.short_share:.1%} of the requests went to the smallest pool. What a split "
        "saves or does for tail latencies on your GPUs: dualpool plan --from http://HOST:PORT "
        "--profile NAME, with a service that runs (this one with --keep)."
    )
