"""Report what predicts completion tokens as one table."""

from collections.abc import Sequence
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from extproc.evaluation.options import WARM_UP
from extproc.evaluation.predicted import LEVEL, PredictedResult

_LEGEND: Final = """\
What predicts completion tokens, where prompts are known exactly and nobody states a limit. Without
the first {warm_up} requests.
exceed: outputs longer than what {level:.0%} of them should exceed; reserved: its mean, in tokens.
over at T: per cent of all requests that would fit T tokens and are sent long, if those of the
lowest risk are sent short, as many as misroute {target:g} % of all requests. Chance alone moves it
by a fifth and more where few requests are near T.
"""
WIDTH: Final = 150


def print_predicted(console: Console, results: Sequence[PredictedResult]) -> None:
    """Print a row for each traffic and predictor."""
    first = results[0]
    legend = _LEGEND.format(warm_up=WARM_UP, level=LEVEL, target=100 * first.target)
    console.print(legend, highlight=False, soft_wrap=True)
    table = Table(title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("", no_wrap=True)
    table.add_column("predictor", no_wrap=True)
    for name in ("exceed", "reserved", *(f"over at {each}" for each in first.over_routed)):
        table.add_column(name, justify="right", no_wrap=True)
    for before, result in zip((None, *results), results, strict=False):
        is_new = before is None or before.traffic != result.traffic
        table.add_row(
            result.traffic if is_new else "",
            result.predictor,
            f"{100 * result.exceeded:.1f}",
            f"{result.reserved:.0f}",
            *(f"{100 * share:.2f}" for share in result.over_routed.values()),
        )
    console.print(table)
