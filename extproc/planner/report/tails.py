"""The tails of each class as a recommendation, tables, JSON and a plot."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from extproc.planner.report.layout import make_table, seconds
from extproc.planner.sizing.plans import count_gpus

if TYPE_CHECKING:
    from extproc.planner.proof.tails import ClassFigures, Shape, TailRow, Tails


def advise(tails: "Tails") -> str:
    """Return what the split does for the tails, and the cheapest fleet that holds both classes."""
    return f"{_least(tails)} {_equal(tails)}"


def _least(tails: "Tails") -> str:
    one, split = tails.least_of(1), tails.least_of(2)
    if split and tails.best is split:
        rest = (
            f"one pool takes {one.gpus}"
            if one
            else "one pool does not, with up to four times the GPUs by formula"
        )
        return (
            f"Split at {tails.threshold}, with --max-num-seqs "
            f"{' and '.join(str(shape.max_num_seqs) for shape in split.shapes)}: {_count(split)} "
            f"hold the objectives of each class; {rest}."
        )
    if one:
        rest = f"a split takes {split.gpus}" if split else "no split does"
        return (
            f"Do not split: {_settings(one.shapes[0])}. One pool of {count_gpus(one.gpus)} "
            f"holds the objectives of each class, with P99 TTFT and TPOT of short requests of "
            f"{seconds(one.short.ttft_p99_s)} and {seconds(one.short.tpot_p99_s)}, and P99 TTFT of "
            f"long ones of {seconds(one.long.ttft_p99_s)}; {rest}.{_turn(tails)}"
        )
    short, long = tails.goals
    return (
        "No fleet tried holds the objectives of each class: P99 TTFT and TPOT of "
        f"{seconds(short.ttft_p99_s)} and {seconds(short.tpot_p99_s)} for short requests, "
        f"{seconds(long.ttft_p99_s)} and {seconds(long.tpot_p99_s)} for long ones. Set others "
        "with --slo-ttft-ms, --slo-tpot-ms, --slo-long-ttft-ms and --slo-long-tpot-ms."
    )


def _settings(shape: "Shape") -> str:
    """Return the flags of vLLM that this pool needs, or that it needs none."""
    if shape.long_prefill_token_threshold:
        return f"set --long-prefill-token-threshold {shape.long_prefill_token_threshold}"
    profile, seqs = shape.profile, shape.max_num_seqs
    if seqs == profile.default_num_seqs(shape.max_num_batched_tokens):
        return f"max_num_seqs {seqs} ({profile.whose_default}) will do"
    return f"set --max-num-seqs {seqs}"


def _turn(tails: "Tails") -> str:
    share = split_wins_from(tails)
    return f" A split wins from {share:.1%} of long requests on." if share else ""


def split_wins_from(tails: "Tails") -> float | None:
    """Return the smallest share of long requests from which on a split takes fewer GPUs."""
    found = None
    for point in reversed(tails.curve):
        if point.split is None or point.split >= (point.unsplit or math.inf):
            break
        found = point.share
    return found


def _equal(tails: "Tails") -> str:
    one, *_, chunked, split = tails.equal
    most = chunked.shapes[0].long_prefill_token_threshold
    pools = (
        ("one pool at vLLM's defaults", one),
        (f"one pool with --long-prefill-token-threshold {most}", chunked),
        ("a split", split),
    )
    seen = "; ".join(
        f"{name}: {seconds(row.short.ttft_p99_s)} and {seconds(row.short.tpot_p99_s)}, "
        f"{seconds(row.long.ttft_p99_s)}"
        for name, row in pools
    )
    return (
        f"With {one.gpus} GPUs for each, P99 TTFT and TPOT of short requests, and P99 TTFT of long "
        f"ones: {seen}."
    )


def _count(row: "TailRow") -> str:
    return f"{row.gpus} GPUs ({' + '.join(map(str, row.instances))} instances)"


def tail_tables(tails: "Tails") -> Iterator[Table]:
    """Yield the tables: equal GPUs, least GPUs, and by the share of long requests."""
    short, long = tails.goals
    share = f"{tails.share:.1%} of the requests are long (over {tails.threshold} tokens)"
    yield _rows(
        f"Tails with equal GPUs, simulated, {tails.requests} requests; {share}", tails.equal
    )
    title = (
        f"Least GPUs for P99 TTFT {seconds(short.ttft_p99_s)} of short and "
        f"{seconds(long.ttft_p99_s)} of long requests, simulated"
    )
    if tails.least:
        yield _rows(title, tails.least)
    table = make_table(
        "Least GPUs by the share of long requests",
        *("long", "one pool", "with chunks", "split"),
    )
    for point in tails.curve:
        counts = (point.one_pool, point.chunked, point.split)
        table.add_row(f"{point.share:.1%}", *map(_known, counts))
    if tails.curve:
        yield table


def _known(gpus: int | None) -> str:
    # Four times the GPUs by formula were tried.
    return "over 4x" if gpus is None else str(gpus)


def _rows(title: str, rows: "Sequence[TailRow]") -> Table:
    table = make_table(
        title,
        *("fleet", "instances", "GPUs", "short TTFT P50", "P99", "TPOT P50", "P99"),
        *("long TTFT P50", "P99", "TPOT P50", "P99"),
    )
    for row in rows:
        counts = " + ".join(map(str, row.instances))
        figures = (*_cells(row.short), *_cells(row.long))
        table.add_row(row.name, counts, str(row.gpus), *figures)
    return table


def _cells(figures: "ClassFigures") -> tuple[str, ...]:
    values = (figures.ttft_p50_s, figures.ttft_p99_s, figures.tpot_p50_s, figures.tpot_p99_s)
    return tuple("-" if math.isnan(value) else seconds(value) for value in values)


def tails_json(tails: "Tails") -> dict[str, object]:
    """Return the study for `--json`; what is infinite or unknown is null."""
    return {
        "threshold": tails.threshold,
        "share_long": tails.share,
        "requests": tails.requests,
        "advice": advise(tails),
        "equal": [_row_json(row) for row in tails.equal],
        "least": [_row_json(row) for row in tails.least],
        "curve": [asdict(point) for point in tails.curve],
    }


def _row_json(row: "TailRow") -> dict[str, object]:
    return {
        "name": row.name,
        "max_num_seqs": [shape.max_num_seqs for shape in row.shapes],
        "long_prefill_token_threshold": [s.long_prefill_token_threshold for s in row.shapes],
        "instances": list(row.instances),
        "gpus": row.gpus,
        "short": asdict(row.short),
        "long": asdict(row.long),
    }
