"""A study as a self-contained HTML page, and its plots as PNG."""

import html as markup
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from extproc.planner.report.text import headline, introduction, tables
from extproc.planner.sizing.study import Study

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1.5em 0 } caption { text-align: left; font-weight: 600 }
th, td { padding: .2em .8em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } svg { max-width: 100%; height: auto }
"""


def write_reports(
    done: Study, notes: Sequence[str], *, html: Path | None, png: Path | None
) -> None:
    """Write the page, the picture, or both. Raises OSError."""
    figure = draw(done)
    if png:
        figure.savefig(png, format="png", dpi=130)
    if html:
        html.write_text(page(done, notes, _svg(figure)), encoding="utf-8")


def draw(done: Study) -> Figure:
    """Plot GPUs by threshold, and the distribution of lengths with the chosen thresholds."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    gpus, lengths = figure.subplots(1, 2)
    _draw_curve(gpus, done)
    _draw_lengths(lengths, done)
    return figure


def page(done: Study, notes: Sequence[str], svg: str) -> str:
    """Return the whole page."""
    lines = (*introduction(done.question), *(f"Note: {note}." for note in notes))
    title = f"A fleet for {done.question.workload.name}"
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f"<title>{markup.escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{markup.escape(title)}</h1>",
            f"<p><b>{markup.escape(headline(done))}</b></p>",
            *(f"<p>{markup.escape(line)}</p>" for line in lines),
            svg,
            *(line for table in tables(done) for line in _table(table)),
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
        axes.set_xscale("log", base=2)
    axes.set(xlabel="threshold, tokens", ylabel="GPUs", title="GPUs of the fleet")
    axes.set_ylim(bottom=0)
    axes.legend()


def _draw_lengths(axes: Axes, done: Study) -> None:
    workload = done.question.workload
    order = np.argsort(workload.total)
    axes.step(workload.total[order], np.cumsum(workload.weights[order]), "C0", where="post")
    for threshold in done.split.thresholds:
        axes.axvline(threshold, color="grey", linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set(
        xlabel="prompt and output tokens", ylabel="share of requests", title="Lengths, and splits"
    )
