"""The two tables of the forms."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Final

from rich.console import RenderableType
from rich.table import Table

from benchmarks.figures import FormFigures, RoundFigures
from benchmarks.load import StreamPlan
from benchmarks.run import new_table, spread

_NONE: Final = "none"
_STREAMS: Final = """\
Median [lowest, highest] of the rounds. Messages: gRPC, both directions. Delay: from the pool's
write of a chunk to the client's read of it, {streams} answers at once. CPU: of whole answers, by
chunk. Added: by both processes, to Envoy's CPU at none in the same round.
usage hidden: the client does not ask for usage, the service does, and Envoy removes it again.
"""
_REQUESTS: Final = """\
Added: milliseconds to the end of the answer, minus those of none in the same round, which are in
parentheses. One request at a time, HTTP/1.1.
"""
_MESSAGES, _P50, _P99 = attrgetter("messages"), attrgetter("p50_ms"), attrgetter("p99_ms")
_ENVOY, _SERVER = attrgetter("envoy_ms"), attrgetter("service_ms")

_Rounds = Sequence[RoundFigures]


def show_forms(measured: FormFigures, plan: StreamPlan) -> Sequence[RenderableType]:
    """Return both tables, each with what its columns are."""
    streams = _streams(measured.streams, plan)
    return streams, _STREAMS.format(streams=plan.streams), _requests(measured), _REQUESTS


def _streams(measured: Mapping[str, _Rounds], plan: StreamPlan) -> Table:
    title = f"Answers: {plan.streams} streams x {plan.chunks} chunks, {plan.gap_ms:g} ms apart"
    costs = ("CPU Envoy us/chunk", "server us/chunk", "added us/chunk")
    table = new_table(title, "", ("messages/chunk", "delay P50 ms", "P99 ms", *costs))
    none = [_ENVOY(each) for each in measured[_NONE]]
    us = 1000 / plan.chunks
    for name, rounds in measured.items():
        pairs = zip(rounds, none, strict=True)
        added = [(_ENVOY(each) + _SERVER(each) - base) * us for each, base in pairs]
        is_none = name == _NONE
        table.add_row(
            name,
            f"{_MESSAGES(rounds[0]) / plan.chunks:.3f}",
            spread([_P50(each) for each in rounds], ".3f"),
            spread([_P99(each) for each in rounds], ".2f"),
            spread([_ENVOY(each) * us for each in rounds], ".1f"),
            "" if is_none else spread([_SERVER(each) * us for each in rounds], ".1f"),
            "" if is_none else spread(added, ".1f"),
        )
    return table


def _requests(measured: FormFigures) -> Table:
    columns = ("messages", "added P50 ms", "added P99 ms", "CPU Envoy us", "server us")
    table = new_table("Requests: how the service receives the body", "", columns)
    for size, forms in measured.requests.items():
        for name, rounds in forms.items():
            table.add_row(
                f"{size >> 10} KiB {name}",
                f"{_MESSAGES(rounds[0]):.1f}",
                *(_added(forms, name, key) for key in (_P50, _P99)),
                spread([_ENVOY(each) * 1000 for each in rounds]),
                "" if name == _NONE else spread([_SERVER(each) * 1000 for each in rounds]),
            )
        table.add_section()
    return table


def _added(forms: Mapping[str, _Rounds], name: str, key: Callable[[RoundFigures], float]) -> str:
    if name == _NONE:
        return f"({spread([key(each) for each in forms[name]], '.2f')})"
    pairs = zip(forms[name], forms[_NONE], strict=True)
    return spread([key(each) - key(none) for each, none in pairs], "+.2f")
