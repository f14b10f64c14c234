"""Plot an evaluation: misrouted against over-routed, and errors over observations."""

from pathlib import Path
from statistics import fmean
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from extproc.evaluation.report import OVER_ROUTED_TARGET, Evaluation

_MARKS: Final = "osD^v<>Pp*hX"
_LEAST: Final = 0.005  # per cent, drawn in place of 0


def draw_plot(evaluation: Evaluation, file: Path) -> None:
    """Write a PNG. Raises OSError."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    routed, learnt = figure.subplots(1, 2)
    _draw_routed(routed, evaluation)
    _draw_errors(learnt, evaluation)
    figure.savefig(file, format="png", dpi=130)


def _draw_routed(axes: Axes, evaluation: Evaluation) -> None:
    for number, name in enumerate(evaluation.estimators):
        for mark, threshold in zip(_MARKS, evaluation.thresholds, strict=False):
            scores = [result.score for result in evaluation.of(name, threshold)]
            axes.plot(
                [max(score.misrouted, _LEAST) for score in scores],
                [max(score.over_routed, _LEAST) for score in scores],
                mark,
                color=f"C{number}",
                alpha=0.7,
                label=f"{name}, {threshold}",
            )
    axes.axvline(evaluation.target, color="grey", linestyle="--", linewidth=1)
    axes.axhline(OVER_ROUTED_TARGET, color="grey", linestyle="--", linewidth=1)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"misrouted, % of all requests (none: {_LEAST})",
        ylabel="over-routed, % of all requests",
        title="Wrongly routed after 50 observations, one mark per tokenizer; dashed: targets",
    )
    axes.title.set_fontsize("medium")
    axes.legend(fontsize="x-small", ncols=2)


def _draw_errors(axes: Axes, evaluation: Evaluation) -> None:
    for number, name in enumerate(evaluation.estimators):
        curves = [result.curve for result in evaluation.of(name, evaluation.thresholds[0])]
        steps = sorted({step for curve in curves for step in curve})
        means = [fmean(curve[step] for curve in curves if step in curve) for step in steps]
        axes.plot([step + 1 for step in steps], means, color=f"C{number}", label=name)
    axes.set(
        xscale="log",
        yscale="symlog",
        xlabel="observations of the category, from the first",
        ylabel="median error of prompt tokens, %",
        title="Error over observations, mean over tokenizers",
    )
    axes.set_ylim(bottom=0)
    axes.title.set_fontsize("medium")
    axes.legend(fontsize="small")
