"""The fleets of several accelerators: the recommendation first, a table, JSON and a picture."""

from collections.abc import Iterator

from rich.console import Console

from extproc.planner.proof.hardware import Hardware, is_mixed
from extproc.planner.proof.tails import TailRow, goals_of
from extproc.planner.report.layout import make_table, seconds


def advise(found: Hardware) -> str:
    """Return which fleet to buy, and what it saves against the best of one accelerator."""
    mixed, single = found.best(mixed=True), found.best(mixed=False)
    if mixed and (single is None or mixed.usd_per_h < single.usd_per_h):
        rest = (
            f"{1 - mixed.usd_per_h / single.usd_per_h:.1%} less than the best of one accelerator: "
            f"{_fleet(single, found)}"
            if single
            else "no fleet of one accelerator that was tried holds the objectives"
        )
        return f"Buy {_fleet(mixed, found)}, {rest}."
    if single:
        rest = f" The cheapest mix is {_fleet(mixed, found)}." if mixed else ""
        return f"Do not mix accelerators: buy {_fleet(single, found)}.{rest}"
    return "No fleet that was tried holds the objectives of each class."


def _fleet(row: TailRow, found: Hardware) -> str:
    counts = " + ".join(map(str, row.instances))
    return f"{row.name} ({counts} instances, ${usd_per_year(row, found):,.0f} a year)"


def usd_per_year(row: TailRow, found: Hardware) -> float:
    """Return what the fleet costs in a year."""
    return row.usd_per_h * found.question.hours_per_year


def print_hardware(console: Console, found: Hardware, notes: tuple[str, ...]) -> None:
    """Print the recommendation and the fleets, the cheapest first."""
    for line in _lines(found, notes):
        console.print(line, highlight=False, markup=False)
    table = make_table(
        "The least instances that hold the objectives, simulated",
        *("fleet", "max seqs", "instances", "GPUs", "$ a year"),
        *("short TTFT P99", "TPOT P99", "long TTFT P99", "TPOT P99"),
    )
    for row in found.rows:
        table.add_row(
            row.name,
            ", ".join(str(shape.max_num_seqs) for shape in row.shapes),
            " + ".join(map(str, row.instances)),
            str(row.gpus),
            f"{usd_per_year(row, found):,.0f}",
            *(seconds(each) for each in (row.short.ttft_p99_s, row.short.tpot_p99_s)),
            *(seconds(each) for each in (row.long.ttft_p99_s, row.long.tpot_p99_s)),
        )
    console.print(table)


def _lines(found: Hardware, notes: tuple[str, ...]) -> Iterator[str]:
    question = found.question
    short, long = goals_of(question)
    yield advise(found)
    yield ""
    yield (
        f"{question.workload.name}: {question.rate_per_s:g} requests/s; "
        f"{1 - question.workload.share_within(found.threshold):.1%} are over {found.threshold} "
        f"tokens. Objectives: P99 TTFT {seconds(short.ttft_p99_s)} and TPOT "
        f"{seconds(short.tpot_p99_s)} of short requests, {seconds(long.ttft_p99_s)} and "
        f"{seconds(long.tpot_p99_s)} of long ones."
    )
    yield (
        f"{found.tried} combinations by formula; the cheapest simulated with {found.requests} "
        "requests each, routed by the service's own rule, misroutes included."
    )
    if found.dearer:
        yield f"Dearer than the cheapest, or out of reach: {'; '.join(found.dearer)}."
    for note in notes:
        yield f"Note: {note}."
    yield ""


def hardware_json(found: Hardware) -> dict[str, object]:
    """Return the fleets for `--json`."""
    return {
        "advice": advise(found),
        "threshold": found.threshold,
        "fleets": [
            {
                "name": row.name,
                "instances": list(row.instances),
                "gpus": row.gpus,
                "usd_per_year": usd_per_year(row, found),
                "mixed": is_mixed(row),
            }
            for row in found.rows
        ],
        "dearer": list(found.dearer),
    }
