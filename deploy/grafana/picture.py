"""Plot the dashboard's panels with their own queries, without Grafana.

Usage: `python -m deploy.grafana.picture URL FILE [MINUTES]`. It queries the Prometheus at URL, or
Grafana's proxy to it, for the last minutes.
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deploy.grafana.panels import PANELS, TARGET, Kind, Panel, Query, Unit, place_panels

_COLUMN_INCHES: Final = 0.72
_ROW_INCHES: Final = 0.36
_POINTS: Final = 120
_FACTORS: Final = {Unit.SHARE: (100, " %"), Unit.SECONDS: (1000, " ms"), Unit.PER_SECOND: (1, "/s")}

Series = tuple[str, list[float], list[float]]  # its name, minutes before now, values


def draw(url: str, path: str, minutes: float) -> None:
    """Draw all panels at their places in the grid. Raises OSError if `url` does not answer."""
    mpl.use("agg")
    placed = list(place_panels(PANELS))
    rows = max(place.y + place.height for _, place in placed)
    figure = Figure(figsize=(24 * _COLUMN_INCHES, rows * _ROW_INCHES), layout="constrained")
    grid = figure.add_gridspec(rows, 24)
    for panel, place in placed:
        cells = grid[place.y : place.y + place.height, place.x : place.x + place.width]
        series = [each for query in panel.queries for each in _ask(url, query, minutes)]
        _draw_panel(figure.add_subplot(cells), panel, series)
    figure.savefig(path, dpi=80)


def _ask(url: str, query: Query, minutes: float) -> list[Series]:
    end = time.time()
    asked = {"query": query.expr, "start": end - 60 * minutes, "end": end,
             "step": 60 * minutes / _POINTS}  # fmt: skip
    address = f"{url}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - the operator's
        found = json.load(answer)["data"]["result"]
    return [_series(query, each, end) for each in found]


def _series(query: Query, found: dict[str, Any], end: float) -> Series:
    name = query.legend
    for label, value in found["metric"].items():
        name = name.replace("{{" + label + "}}", value)
    times, values = zip(*found["values"], strict=True)
    name = re.sub("{{.*?}}", "", name)  # labels that this series does not have
    return name, [(each - end) / 60 for each in times], [float(each) for each in values]


def _draw_panel(axes: Axes, panel: Panel, series: list[Series]) -> None:
    axes.set_title(panel.title, fontsize=9, loc="left")
    factor, unit = _FACTORS.get(panel.unit, (1, ""))
    if panel.kind is Kind.STAT:
        _write_values(axes, [f"{name}  {factor * v[-1]:.3g}{unit}" for name, _, v in series])
        return
    for name, minutes, values in series:
        style = "r--" if name == TARGET else "-"
        axes.plot(minutes, [factor * value for value in values], style, lw=1.2, label=name)
    axes.set_ylabel(unit.strip(), fontsize=7)
    axes.tick_params(labelsize=7)
    if not panel.signed:
        axes.set_ylim(bottom=0)
    axes.legend(fontsize=6, loc="upper left", framealpha=0.6)


def _write_values(axes: Axes, lines: list[str]) -> None:
    axes.axis("off")
    axes.text(0, 0.5, "\n".join(lines), fontsize=10, va="center", transform=axes.transAxes)


if __name__ == "__main__":
    draw(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 60)
