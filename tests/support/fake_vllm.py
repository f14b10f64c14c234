"""A vLLM server in the test's own event loop: one token per millisecond and sequence."""

import asyncio
import time
from collections.abc import Callable
from itertools import count

from extproc.planner.traffic.lengths import Length
from extproc.profiling.vllm import Facts, Streamed, VllmError

FACTS = Facts(model="m", max_model_len=2048, block_size=16, num_blocks=400)
ITERATION_S = 0.001


class FakeVllm:
    """Stands in for Vllm: at most `slots` sequences run at once.

    preempts: whether anything is preempted during a probe. fails: the error of every completion
    but the first `after`. short: the answers that end after one token.
    """

    def __init__(
        self,
        slots: int = 8,
        *,
        preempts: bool = False,
        fails: VllmError | None = None,
        after: int = 1,
        short: Callable[[Length], bool] = lambda _: False,
    ) -> None:
        self.facts = FACTS
        self.lengths: list[Length] = []
        self._slots = asyncio.Semaphore(slots)
        self._running = 0
        self._scrapes = count()
        self._preempts, self._fails, self._short = preempts, fails, short
        self._after = after

    async def complete(self, length: Length, into: Streamed) -> None:
        self.lengths.append(length)
        if self._fails and len(self.lengths) > self._after:
            raise self._fails
        into.sent_s = time.monotonic()
        async with self._slots:
            self._running += 1
            try:
                for _ in range(1 if self._short(length) else length.output):
                    await asyncio.sleep(ITERATION_S)
                    into.receive()
            finally:
                self._running -= 1
        into.over = True

    async def metric(self, name: str) -> float:
        if name == "vllm:num_requests_running":
            return self._running
        return next(self._scrapes) if self._preempts else 0.0
