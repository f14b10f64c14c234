"""Plot the latencies of simulated requests, one curve per rule."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from extproc.planner.simulation.records import Floats, Records


def draw_simulation(records: Mapping[str, Records], file: Path) -> None:
    """Write a PNG of the first seed's runs. Raises OSError."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    first, later = figure.subplots(1, 2)
    _draw(first, records, lambda each: each.ttft_s)
    first.set(xlabel="TTFT, s", xscale="log", title="Time to the first token (simulated)")
    _draw(later, records, lambda each: 1000 * each.tpot_s)
    later.set(xlabel="TPOT, ms", title="Time per token after the first (simulated)")
    figure.savefig(file, format="png", dpi=130)


def _draw(axes: Axes, records: Mapping[str, Records], read: Callable[[Records], Floats]) -> None:
    for name, each in records.items():
        values = np.sort(read(each))
        values = values[~np.isnan(values)]
        finite = values[np.isfinite(values)]
        shares = np.arange(1, finite.size + 1) / max(1, values.size)
        axes.step(finite, shares, where="post", label=name)
    axes.set_ylabel("share of all requests")
    axes.set_ylim(0, 1.01)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
