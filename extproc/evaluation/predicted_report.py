"""Report what predicts completion tokens: a table for each traffic."""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from extproc.evaluation.options import WARM_UP
from extproc.evaluation.predicted import LEVEL, PredictedResult

_LEGEND: Final = """\
What predicts completion tokens. Prompts are known exactly and nobody states a
limit. The first {warm_up} requests are not counted.
category: one distribution for all requests. sizes: one for each size of prompt.
kinds and sizes: as the service has, also by how much a request asks to think.
oracle: knows the output.
exceed: per cent of the outputs that are longer than the predicted {upper:.0%} quantile;
{level:g} if it is right. reserved: the mean of that quantile, in tokens.
over N: per cent of all requests that fit N tokens and are sent long. Those of
the lowest risk are sent short, until {target:g} % of all requests are misrouted.
Chance alone moves it by a fifth and more where few requests are near N.
"""


def print_predicted(console: Console, results: Sequence[PredictedResult]) -> None:
    """Print a table for each traffic, with a row for each predictor."""
    legend = _LEGEND.format(
        warm_up=WARM_UP, upper=1 - LEVEL, level=100 * LEVEL, target=100 * results[0].target
    )
    console.print(legend, highlight=False, soft_wrap=True)
    for traffic, rows in groupby(results, key=attrgetter("traffic")):
        console.print(_table(traffic, tuple(rows)))


def _table(traffic: str, rows: Sequence[PredictedResult]) -> Table:
    table = Table(title=traffic, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("predictor", no_wrap=True)
    for name in ("exceed", "reserved", *(f"over {each}" for each in rows[0].over_routed)):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.predictor,
            f"{100 * row.exceeded:.1f}",
            f"{row.reserved:.0f}",
            *(f"{100 * share:.2f}" for share in row.over_routed.values()),
        )
    return table
