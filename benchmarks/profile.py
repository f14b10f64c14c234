"""Section profile: which modules the CPU of decisions and observations is spent in.

A sampling profile: the kernel's timer of CPU time interrupts this process, and the frame that runs
is charged. C code, as protobuf's or NumPy's, is charged to the module that called it.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from rich.table import Table

from benchmarks.bodies import KIB, Body, text_body
from benchmarks.engine import Engine
from benchmarks.messages import answer_messages, request_messages
from benchmarks.run import Plan, Result, Tools, new_table
from extproc.config.settings import Settings
from extproc.progress import Show

_INTERVAL_S: Final = 0.001
_ROWS: Final = 14
_PACKAGE: Final = "extproc."
_METHOD: Final = """\
Per cent of the samples of CPU time, by the innermost module of the service; a sample each ms.
"""


async def measure(plan: Plan, tools: Tools, show: Show) -> Result:
    """Profile the streams of the router and of the observer."""
    del tools  # all is in this process
    seconds = 0.2 if plan.quick else 2.0 * plan.rounds
    engine, calls = Engine(Settings()), {}
    for size in (KIB, 64 * KIB):
        body = text_body(size)
        decide, observe = _calls(engine, body)
        calls[f"decide {body.name}"] = decide
        if size == KIB:
            calls["observe"] = observe
    show.begin("profile", len(calls))
    found = {}
    for name, call in calls.items():
        found[name] = _profile(call, seconds)
        show.advance()
    return Result((_table(found), _METHOD), found)


def _calls(engine: Engine, body: Body) -> tuple[Callable[[], object], Callable[[], object]]:
    request = request_messages(body.data)
    for _ in range(100):
        engine.teach(request, body.prompt_tokens)
    answer = answer_messages(engine.decide(request), body.prompt_tokens)
    return lambda: engine.decide(request), lambda: engine.observe(answer)


def _profile(call: Callable[[], object], seconds: float) -> dict[str, float]:
    """Return the share of each module, the largest first."""
    with _sampling() as samples:
        end = time.process_time() + seconds
        while time.process_time() < end:
            call()
    total = samples.total() or 1
    return {name: count / total for name, count in samples.most_common()}


@contextmanager
def _sampling() -> Iterator[Counter[str]]:
    samples: Counter[str] = Counter()

    def sample(_: int, frame: FrameType | None) -> None:
        while frame and not frame.f_globals["__name__"].startswith(_PACKAGE):
            frame = frame.f_back
        if frame:
            samples[frame.f_globals["__name__"].removeprefix(_PACKAGE)] += 1

    before = signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL_S, _INTERVAL_S)
    try:
        yield samples
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def _table(found: Mapping[str, Mapping[str, float]]) -> Table:
    table = new_table("Where the CPU goes", "module", list(found))
    sums: Counter[str] = Counter()  # of shares
    for shares in found.values():
        sums.update(shares)
    for name, _ in sums.most_common(_ROWS):
        table.add_row(name, *_cells(found, name))
    return table


def _cells(found: Mapping[str, Mapping[str, float]], name: str) -> Sequence[str]:
    return [f"{100 * shares.get(name, 0.0):.0f}" for shares in found.values()]
