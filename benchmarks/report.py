"""Prints the two tables on a terminal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import median
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.figures import BenchmarkRun, RoundFigures
from benchmarks.load import LoadPlan

_STREAMS: Final = """\
Messages are gRPC messages between Envoy and the service, both directions. Delay: from the pool's
write of a chunk to the client's read of it. CPU: seconds for all {streams} answers; in brackets the
ratio to none (for the service: to Envoy's seconds at none, since it is idle there).
usage hidden: the client does not ask for usage, the service does, and Envoy removes it again.
"""
_REQUESTS: Final = """\
Added: milliseconds to the end of the answer, minus those of none, which are in brackets. CPU:
microseconds per request, in brackets the ratio to none (for the service: to Envoy's at none). One
request at a time, HTTP/1.1.
"""


def print_tables(console: Console, measured: BenchmarkRun, plan: LoadPlan) -> None:
    """Print the machine, the method and both tables."""
    console.print(_heading(measured, plan), highlight=False, soft_wrap=True)
    console.print(_streams(measured, plan))
    console.print(_STREAMS.format(streams=plan.streams), highlight=False)
    console.print(_requests(measured))
    console.print(_REQUESTS, highlight=False)


def _heading(measured: BenchmarkRun, plan: LoadPlan) -> str:
    return (
        f"{measured.machine}\n{measured.versions}\n{measured.command}\n"
        f"{plan.rounds} rounds, each form once in each, with an Envoy of its own; seed"
        f" {measured.seed}. Each figure is the\nmedian over the rounds; ratios and differences are"
        " relative to none in the same round.\n"
    )


def _streams(measured: BenchmarkRun, plan: LoadPlan) -> Table:
    table = _table(
        f"Answers: {plan.streams} streams x {plan.chunks} chunks, {plan.gap_ms:g} ms apart",
        ("messages", "per chunk", "delay P50 ms", "P99 ms", "CPU Envoy s", "CPU service s"),
    )
    seconds = plan.streams / 1000
    for name, row in _compared(measured.streams):
        messages = row.median(_MESSAGES)
        table.add_row(
            name,
            f"{messages:.1f}",
            f"{messages / plan.chunks:.3f}",
            f"{row.median(_P50):.3f} {row.ratio(_P50, _P50)}",
            f"{row.median(_P99):.2f} {row.ratio(_P99, _P99)}",
            f"{row.median(_ENVOY) * seconds:.3f} {row.ratio(_ENVOY, _ENVOY)}",
            f"{row.median(_SERVICE) * seconds:.3f} {row.ratio(_SERVICE, _ENVOY)}",
        )
    return table


def _requests(measured: BenchmarkRun) -> Table:
    table = _table(
        "Requests: how the service receives the body",
        ("messages", "added P50 ms", "added P99 ms", "CPU Envoy us", "CPU service us"),
    )
    for size, forms in measured.requests.items():
        for name, row in _compared(forms):
            table.add_row(
                f"{size >> 10} KiB {name}",
                f"{row.median(_MESSAGES):.1f}",
                *(row.added(key) for key in (_P50, _P99)),
                f"{row.median(_ENVOY) * 1000:.0f} {row.ratio(_ENVOY, _ENVOY)}",
                f"{row.median(_SERVICE) * 1000:.0f} {row.ratio(_SERVICE, _ENVOY)}",
            )
        table.add_section()
    return table


_MESSAGES, _P50, _P99 = attrgetter("messages"), attrgetter("p50_ms"), attrgetter("p99_ms")
_ENVOY, _SERVICE = attrgetter("envoy_ms"), attrgetter("service_ms")


@dataclass(frozen=True, slots=True)
class _FormRounds:
    """The rounds of a form, and those of none, by which it is divided."""

    rounds: Sequence[RoundFigures]
    none: Sequence[RoundFigures]

    def median(self, key: Callable[[RoundFigures], float]) -> float:
        return median(key(each) for each in self.rounds)

    def ratio(
        self, key: Callable[[RoundFigures], float], base: Callable[[RoundFigures], float]
    ) -> str:
        pairs = zip(self.rounds, self.none, strict=True)
        return f"({median(key(each) / base(none) for each, none in pairs):.1f}x)"

    def added(self, key: Callable[[RoundFigures], float]) -> str:
        if self.rounds is self.none:
            return f"({self.median(key):.2f})"
        pairs = zip(self.rounds, self.none, strict=True)
        return f"{median(key(each) - key(none) for each, none in pairs):+.2f}"


def _compared(forms: Mapping[str, Sequence[RoundFigures]]) -> Iterator[tuple[str, _FormRounds]]:
    for name, rounds in forms.items():
        yield name, _FormRounds(rounds, forms["none"])


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table
