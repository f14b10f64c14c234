"""How long a page keeps the event loop from its next turn, in CPU time of the process."""

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.bodies import KIB, text_body
from benchmarks.engine import Engine
from benchmarks.messages import request_messages
from extproc.config.settings import Settings
from extproc.service.http import HttpServer
from extproc.service.memory import spare_modules
from extproc.service.serve import SWITCH_INTERVAL_S

_QUIET_S: Final = 0.2
_PAGES: Final = 5
_CLIENT: Final = """
import sys, urllib.request
for _ in sys.stdin:
    urllib.request.urlopen(sys.argv[1]).read()
    print(flush=True)
"""


@dataclass(frozen=True, slots=True)
class Stops:
    """CPU milliseconds between two turns of the loop, at most."""

    loop: float
    """Of the loop's own thread: what one of its callbacks took."""
    process: float
    """Of all threads: also what the one that writes the page took before the loop's turn came.

    On a busy machine that is as much as the scheduler gives a thread, before it wakes another.
    """


async def measure_stops(settings: Settings, header: str, categories: int) -> tuple[Stops, Stops]:
    """Return the stops without and beside pages, in this process; medians of several."""
    engine, body = Engine(settings), text_body(KIB)
    for index in range(categories):
        engine.teach(request_messages(body.data, {header: f"task-{index}"}), body.prompt_tokens)
    spare_modules()
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    server = HttpServer(engine.registry, engine.learner, dict, lambda: True)
    port = await server.start("127.0.0.1", 0)
    try:
        return await _measure(f"http://127.0.0.1:{port}/metrics")
    finally:
        await server.stop()
        sys.setswitchinterval(before)


async def _measure(url: str) -> tuple[Stops, Stops]:
    quiet, beside = list[Stops](), list[Stops]()
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _CLIENT, url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert client.stdin is not None  # noqa: S101 - for the type
    assert client.stdout is not None  # noqa: S101
    for _ in range(_PAGES):
        pause = asyncio.ensure_future(asyncio.sleep(_QUIET_S))
        quiet.append(await _longest(pause.done))
        client.stdin.write(b"\n")
        page = asyncio.ensure_future(client.stdout.readline())
        beside.append(await _longest(page.done))
    client.stdin.close()
    await client.wait()
    return _median(quiet), _median(beside)


async def _longest(done: Callable[[], bool]) -> Stops:
    """Take a turn as soon as the loop gives one, until all is done."""
    loop, process = 0.0, 0.0
    own, of_all = time.thread_time(), time.process_time()
    while not done():
        await asyncio.sleep(0)
        loop, own = max(loop, time.thread_time() - own), time.thread_time()
        process, of_all = max(process, time.process_time() - of_all), time.process_time()
    return Stops(loop * 1000, process * 1000)


def _median(stops: list[Stops]) -> Stops:
    return Stops(median(each.loop for each in stops), median(each.process for each in stops))
