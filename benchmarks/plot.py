"""Plots the section requests: CPU and requests a second, as ratios within a round."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.requests import GRPC_NULL, NONE, SERVERS, Figures

_BAR: Final = 0.8
_COLOURS: Final = dict(zip(SERVERS, mpl.color_sequences["tab10"], strict=False))

_server_us: Final = attrgetter("server_us")
_Rounds = Mapping[str, Sequence[Figures]]


def plot(sections: Mapping[str, Any], path: Path) -> None:
    """Write the plot; without the section requests there is nothing to plot."""
    cases: Mapping[str, _Rounds] = sections.get("requests", {})
    if not cases:
        return
    figure = Figure(figsize=(11, 2.5 + 0.9 * len(cases)), layout="constrained")
    cpu, envoy, rate = figure.subplots(1, 3, sharey=True)
    _draw(cpu, cases, GRPC_NULL, _server_us)
    cpu.set_title("CPU of the server per request,\nto the C++ gRPC null")
    cpu.set_xscale("log")
    cpu.xaxis.set_major_formatter("{x:g}")
    cpu.xaxis.set_minor_formatter("")
    _draw(envoy, cases, GRPC_NULL, lambda each: each.envoy_us)
    envoy.set_title("CPU of Envoy per request,\nto Envoy's with the C++ null")
    closed = {name: rounds for name, rounds in cases.items() if "requests/s" not in name}
    _draw(rate, closed, NONE, lambda each: each.per_s)
    rate.set_title("Requests a second,\nto no ext_proc")
    cpu.set_yticks(range(len(cases)), [*closed, *(name for name in cases if name not in closed)])
    cpu.invert_yaxis()
    handles, labels = envoy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=120)


def _draw(
    axes: Any, cases: Mapping[str, _Rounds], base: str, key: Callable[[Figures], float]
) -> None:
    ordered = sorted(cases, key=lambda name: "requests/s" in name)
    names = [name for name in SERVERS if any(name in cases[case] for case in ordered)]
    height = _BAR / max(1, len(names))
    for index, name in enumerate(names):
        for row, case in enumerate(ordered):
            rounds = cases[case]
            if name not in rounds or base not in rounds or (name == NONE and key is _server_us):
                continue
            pairs = zip(rounds[name], rounds[base], strict=True)
            values = [key(each) / key(other) for each, other in pairs]
            middle = median(values)
            axes.barh(
                row - _BAR / 2 + (index + 0.5) * height, middle, height,
                xerr=[[middle - min(values)], [max(values) - middle]],
                color=_COLOURS[name], label=name if row == 0 else None, error_kw={"linewidth": 0.8},
            )  # fmt: skip
    axes.axvline(1.0, color="black", linewidth=0.8)
