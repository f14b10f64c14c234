"""A study as a self-contained HTML page, and its plots as PNG."""

import html as markup
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
from extproc.planner.report.layout import seconds
from extproc.planner.report.text import default_name, headline, introduction, tables
from extproc.planner.sizing.study import Study

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
h1 { overflow-wrap: anywhere }
.wide { overflow-x: auto; margin: 1.5em 0 }
table { border-collapse: collapse } caption { text-align: left; font-weight: 600 }
th, td { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
.plots { display: flex; flex-wrap: wrap; gap: 1em }
.plots svg { flex: 1 1 20em; width: 100%; max-width: 29em; height: auto }
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
    if png:
        draw(done, tails).savefig(png, format="png", dpi=130)
    if html:
        # One picture for each: side by side they would be too small on a phone.
        plots = "\n".join(_svg(title, panel) for title, panel in _panels(done, tails))
        html.write_text(page(done, notes, plots, tails), encoding="utf-8")


Panel = Callable[[Axes], None]


def _panels(done: Study, tails: Tails | None) -> Iterator[tuple[str, Panel]]:
    """Yield the plots: every candidate first."""
    yield "candidates", partial(_draw_candidates, candidates=list(_candidates(done, tails)))
    if tails:
        yield "tails", partial(_draw_tails, tails=tails)
    yield "thresholds", partial(_draw_curve, done=done)
    yield "lengths", partial(_draw_lengths, done=done)


def draw(done: Study, tails: Tails | None = None) -> Figure:
    """Plot the candidates, GPUs by threshold, and the lengths with the chosen thresholds."""
    panels = list(_panels(done, tails))
    columns = 2 if tails else 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.4 * columns, 4.2 * rows), layout="constrained")
    for number, (_, panel) in enumerate(panels, 1):
        panel(figure.add_subplot(rows, columns, number))
    return figure


def page(done: Study, notes: Sequence[str], plots: str, tails: Tails | None = None) -> str:
    """Return the whole page."""
    lines = (*introduction(done.question), *(f"Note: {note}." for note in notes))
    title = f"A fleet for {done.question.workload.name}"
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{markup.escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{markup.escape(title)}</h1>",
            f"<p><b>{markup.escape(headline(done, tails))}</b></p>",
            f'<div class="plots">{plots}</div>',
            *(f"<p>{markup.escape(line)}</p>" for line in lines),
            *(line for table in tables(done, tails) for line in _table(table)),
            "</body></html>\n",
        )
    )


def _table(table: Table) -> Iterator[str]:
    yield '<div class="wide">'
    yield f"<table><caption>{markup.escape(str(table.title))}</caption>"
    yield _row("th", [str(column.header) for column in table.columns])
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        yield _row("td", [str(cell) for cell in cells])
    yield "</table></div>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{markup.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _svg(name: str, panel: Panel) -> str:
    figure, out = Figure(figsize=(4.6, 3.6), layout="constrained"), io.StringIO()
    panel(figure.add_subplot())
    # Keep the page reproducible: no date, and ids from a fixed salt, one for each plot.
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    gpus: int
    seen: str
    colour: str


def _candidates(done: Study, tails: Tails | None) -> Iterator[_Candidate]:
    if tails:
        for title, rows in (("least", tails.least), ("equal GPUs", tails.equal)):
            for row in rows:
                short, long = (seconds(each.ttft_p99_s) for each in (row.short, row.long))
                colour = "C0" if len(row.shapes) > 1 else "C1"
                yield _Candidate(f"{row.name} ({title})", row.gpus, f"{short}, {long}", colour)
        return
    plans = (
        (default_name(done.question), done.by_default, "C1"),
        (f"1, {done.by_lengths.pools[0].max_num_seqs} sequences", done.by_lengths, "C1"),
        *((f"{len(plan.pools)} pools", plan, "C0") for plan in done.splits),
        ("1, the papers' KV / window", done.by_window, "lightgrey"),
    )
    for name, plan, colour in plans:
        seen = seconds(max(pool.ttft_p99_s for pool in plan.pools))
        yield _Candidate(name, plan.gpus, seen if plan.meets else f"{seen}, fails", colour)


def _draw_candidates(axes: Axes, candidates: Sequence[_Candidate]) -> None:
    rows = candidates[::-1]
    bars = axes.barh(
        [row.name for row in rows], [row.gpus for row in rows], color=[row.colour for row in rows]
    )
    axes.bar_label(bars, [f"{row.gpus}: {row.seen}" for row in rows], padding=3, fontsize="small")
    several = any(", " in row.seen and "fails" not in row.seen for row in rows)
    title = "GPUs: P99 TTFT of short, of long" if several else "GPUs: P99 TTFT"
    axes.set(xlabel="GPUs", title=title)
    axes.set_xlim(
        right=(2.2 if several else 1.6) * max(row.gpus for row in rows)
    )  # room for the labels
    axes.tick_params(axis="y", labelsize="small")


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
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), frameon=False, fontsize="small")


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
