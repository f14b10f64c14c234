"""A study as a self-contained HTML page, and its plots as PNG."""

import html as markup
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.table import Table

from extproc.planner.proof.hardware import Hardware, is_mixed
from extproc.planner.proof.tails import Tails
from extproc.planner.report.hardware import usd_per_year
from extproc.planner.report.text import headline, introduction, tables
from extproc.planner.sizing.study import Study

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1.5em 0 } caption { text-align: left; font-weight: 600 }
th, td { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } svg { max-width: 100%; height: auto }
"""


def write_reports(
    done: Study,
    notes: Sequence[str],
    *,
    html: Path | None,
    png: Path | None,
    tails: Tails | None = None,
) -> None:
    """Write the page, the picture, or both. Raises OSError."""
    figure = draw(done, tails)
    if png:
        figure.savefig(png, format="png", dpi=130)
    if html:
        html.write_text(page(done, notes, _svg(figure), tails), encoding="utf-8")


def draw(done: Study, tails: Tails | None = None) -> Figure:
    """Plot GPUs by threshold, and the distribution of lengths with the chosen thresholds."""
    figure = Figure(figsize=(18 if tails else 12, 4.8), layout="constrained")
    gpus, lengths, *rest = figure.subplots(1, 3 if tails else 2)
    _draw_curve(gpus, done)
    _draw_lengths(lengths, done)
    if tails:
        _draw_tails(rest[0], tails)
    return figure


def page(done: Study, notes: Sequence[str], svg: str, tails: Tails | None = None) -> str:
    """Return the whole page."""
    lines = (*introduction(done.question), *(f"Note: {note}." for note in notes))
    title = f"A fleet for {done.question.workload.name}"
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f"<title>{markup.escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{markup.escape(title)}</h1>",
            f"<p><b>{markup.escape(headline(done, tails))}</b></p>",
            *(f"<p>{markup.escape(line)}</p>" for line in lines),
            svg,
            *(line for table in tables(done, tails) for line in _table(table)),
            "</body></html>\n",
        )
    )


def _table(table: Table) -> Iterator[str]:
    yield f"<table><caption>{markup.escape(str(table.title))}</caption>"
    yield _row("th", [str(column.header) for column in table.columns])
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        yield _row("td", [str(cell) for cell in cells])
    yield "</table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{markup.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    # Keep the page reproducible: no date, and ids from a fixed salt.
    with rc_context({"svg.hashsalt": "dualpool", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _draw_curve(axes: Axes, done: Study) -> None:
    seqs, papers = (plan.pools[0].max_num_seqs for plan in (done.one_pool, done.by_window))
    axes.axhline(done.one_pool.gpus, color="C1", label=f"one pool, {seqs} sequences")
    label = f"one pool, {papers} (the papers' rival)"
    axes.axhline(done.by_window.gpus, color="grey", linestyle=":", label=label)
    if done.curve:
        thresholds = [plan.thresholds[0] for plan in done.curve]
        axes.plot(thresholds, [plan.gpus for plan in done.curve], "C0.-", label="two pools")
        failing = [plan for plan in done.curve if not plan.meets]
        axes.plot(
            [plan.thresholds[0] for plan in failing],
            [plan.gpus for plan in failing],
            "C3x",
            label="two pools, an objective fails",
        )
        _count_in_tokens(axes)
    axes.set(xlabel="threshold, tokens", ylabel="GPUs", title="GPUs of the fleet")
    axes.set_ylim(bottom=0)
    _legend_below(axes)


def _draw_lengths(axes: Axes, done: Study) -> None:
    workload = done.question.workload
    order = np.argsort(workload.total)
    axes.step(workload.total[order], np.cumsum(workload.weights[order]), "C0", where="post")
    for threshold in done.split.thresholds:
        axes.axvline(threshold, color="grey", linestyle="--")
    _count_in_tokens(axes)
    axes.set(
        xlabel="prompt and output tokens", ylabel="share of requests", title="Lengths, and splits"
    )


def _draw_tails(axes: Axes, tails: Tails) -> None:
    """Plot the least GPUs of one pool and of a split over the share of long requests."""
    shares = [100 * point.share for point in tails.curve]
    for label, colour, gpus in (
        ("one pool", "C1.-", [point.one_pool for point in tails.curve]),
        ("one pool, prefills in chunks", "C2.-", [point.chunked for point in tails.curve]),
        ("split", "C0.-", [point.split for point in tails.curve]),
    ):
        axes.plot(shares, [math.nan if n is None else n for n in gpus], colour, label=label)
    axes.set(
        xlabel=f"requests over {tails.threshold} tokens, %",
        ylabel="GPUs",
        title="Least GPUs for both classes' objectives",
    )
    axes.set_ylim(bottom=0)
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    # Below the axes, where it hides no data.
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.15), ncols=2, frameon=False)


def _count_in_tokens(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(_tokens))


def _tokens(value: float, _: int | None = None) -> str:
    """Write tokens as 512, 1K, 64K."""
    return f"{value / 1024:g}K" if value >= 1024 else f"{value:g}"


def draw_hardware(found: Hardware, file: Path) -> None:
    """Write a PNG of the yearly cost of each fleet. Raises OSError."""
    figure = Figure(figsize=(9, 1.2 + 0.5 * max(1, len(found.rows))), layout="constrained")
    axes = figure.subplots()
    rows = found.rows[::-1]
    axes.barh(
        [row.name for row in rows],
        [usd_per_year(row, found) / 1e3 for row in rows],
        color=["C0" if is_mixed(row) else "C1" for row in rows],
    )
    axes.set(xlabel="1000 $ a year (blue: two accelerators, orange: one)")
    figure.savefig(file, format="png", dpi=130)
