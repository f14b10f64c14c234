"""The tails of each class as a recommendation, tables, JSON and a plot."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

from rich.table import Table

from extproc.planner.proof.tails import ClassFigures, TailRow, Tails
from extproc.planner.report.layout import make_table, seconds

NOT_MODELLED: Final = (
    "The simulator does not model long_prefill_token_threshold and partial prefills: one pool that "
    "sets them may do better than the one pool here"
)


def advise(tails: Tails) -> str:
    """Return what the split does for the tails, and the cheapest fleet that holds both classes."""
    return f"{_least(tails)} {_equal(tails)}"


def _least(tails: Tails) -> str:
    one, split = tails.least_of(1), tails.least_of(2)
    if split and (one is None or split.gpus < one.gpus):
        rest = (
            f"one pool takes {one.gpus}"
            if one
            else "one pool does not, with up to four times the GPUs by formula"
        )
        return (
            f"Split at {tails.threshold}: {_count(split)} hold the objectives of each class; "
            f"{rest}."
        )
    if one:
        seqs = one.shapes[0].max_num_seqs
        rest = f"a split takes {split.gpus}" if split else "no split does"
        return (
            f"Do not split: set --max-num-seqs {seqs}. One pool of {one.gpus} GPUs holds the "
            f"objectives of each class; {rest}.{_turn(tails)}"
        )
    return "No fleet tried holds the objectives of each class."


def _turn(tails: Tails) -> str:
    share = split_wins_from(tails)
    return f" A split wins from {share:.1%} of long requests on." if share else ""


def split_wins_from(tails: Tails) -> float | None:
    """Return the smallest share of long requests from which on a split takes fewer GPUs."""
    found = None
    for point in reversed(tails.curve):
        if point.split is None or point.split >= (point.one_pool or math.inf):
            break
        found = point.share
    return found


def _equal(tails: Tails) -> str:
    one, split = tails.equal[0], tails.equal[-1]
    return (
        f"With {one.gpus} GPUs for either, a split takes the P99 TTFT of short requests from "
        f"{seconds(one.short.ttft_p99_s)} to {seconds(split.short.ttft_p99_s)} and their P99 TPOT "
        f"from {seconds(one.short.tpot_p99_s)} to {seconds(split.short.tpot_p99_s)}; the P99 TTFT "
        f"of long ones goes from {seconds(one.long.ttft_p99_s)} to "
        f"{seconds(split.long.ttft_p99_s)}."
    )


def _count(row: TailRow) -> str:
    return f"{row.gpus} GPUs ({' + '.join(map(str, row.instances))} instances)"


def tail_tables(tails: Tails) -> Iterator[Table]:
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
    yield _rows(title, tails.least)
    table = make_table(
        "Least GPUs by the share of long requests",
        *("long", "one pool", "split"),
    )
    for point in tails.curve:
        table.add_row(f"{point.share:.1%}", _known(point.one_pool), _known(point.split))
    if tails.curve:
        yield table


def _known(gpus: int | None) -> str:
    # Four times the GPUs by formula were tried.
    return "over 4x" if gpus is None else str(gpus)


def _rows(title: str, rows: Sequence[TailRow]) -> Table:
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


def _cells(figures: ClassFigures) -> tuple[str, ...]:
    values = (figures.ttft_p50_s, figures.ttft_p99_s, figures.tpot_p50_s, figures.tpot_p99_s)
    return tuple("-" if math.isnan(value) else seconds(value) for value in values)


def tails_json(tails: Tails) -> dict[str, object]:
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


def _row_json(row: TailRow) -> dict[str, object]:
    return {
        "name": row.name,
        "max_num_seqs": [shape.max_num_seqs for shape in row.shapes],
        "instances": list(row.instances),
        "gpus": row.gpus,
        "short": asdict(row.short),
        "long": asdict(row.long),
    }
