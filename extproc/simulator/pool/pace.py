"""Runs the engine model against the wall clock: one task, one sleep per iteration.

Invariant: no token is delivered before the iteration that generates it has ended.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from extproc.simulator.engine import Engine, Event, EventKind
from extproc.simulator.engine import Sequence as Tokens
from extproc.simulator.pool.metrics import PoolMetrics

_NS_PER_S = 1_000_000_000


class Ticket:
    """One sequence in the engine; `changed` is set whenever it has new tokens."""

    __slots__ = (
        "admitted_ns",
        "arrived_ns",
        "changed",
        "finish",
        "first_ns",
        "last_ns",
        "preemptions",
        "sequence",
        "tokens",
    )

    def __init__(self, sequence: Tokens, finish: str, changed: asyncio.Event) -> None:
        self.sequence = sequence
        self.finish = finish  # "stop" or "length", once it is complete
        self.changed = changed
        self.tokens = 0
        self.preemptions = 0
        self.arrived_ns = self.first_ns = self.last_ns = 0
        self.admitted_ns: int | None = None

    @property
    def over(self) -> bool:
        """Whether it has all its tokens."""
        return self.tokens == self.sequence.output_tokens


class PacedEngine:
    """Runs an engine in real time, delivers its tokens and updates the metrics."""

    def __init__(self, engine: Engine, metrics: PoolMetrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._tickets: dict[Tokens, Ticket] = {}
        self._work = asyncio.Event()
        self._origin_ns = time.monotonic_ns()
        metrics.watch(engine)

    @contextmanager
    def admit(self, tickets: Sequence[Ticket]) -> Iterator[None]:
        """Submit the sequences of a request; abort the unfinished ones when the block ends."""
        now_ns = self._now_ns()
        if not self._tickets:
            self._engine.advance(now_ns)  # it was idle, so this only moves its time
        try:
            for ticket in tickets:
                ticket.arrived_ns = now_ns
                self._engine.submit(ticket.sequence)
                self._tickets[ticket.sequence] = ticket
            self._work.set()
            yield
        finally:
            for ticket in tickets:
                self._engine.abort(ticket.sequence)
                self._tickets.pop(ticket.sequence, None)

    async def run(self) -> None:
        """Run iterations whenever there is work, until cancelled."""
        while True:
            await self._work.wait()
            now_ns = self._now_ns()
            # Runs the iterations that begin by now: one, unless the loop was late. Its tokens exist
            # at its end, engine.now_ns, so delivery waits until then.
            events = self._engine.advance(now_ns + 1)
            await asyncio.sleep((self._engine.now_ns - now_ns) / _NS_PER_S)
            self._deliver(events)
            if not self._tickets:
                self._work.clear()

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self._origin_ns

    def _deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            if ticket := self._tickets.get(event.sequence):
                self._note(event, ticket)
        for ticket in list(self._tickets.values()):
            tokens = self._engine.generated(ticket.sequence)
            if tokens > ticket.tokens:
                self._gain(ticket, tokens)

    def _note(self, event: Event, ticket: Ticket) -> None:
        if event.kind is EventKind.PREEMPTED:
            ticket.preemptions += 1
            self._metrics.preemptions.inc()
        # Only the first admission ends the time in the queue; vLLM leaves out preemptions too.
        elif event.kind is EventKind.ADMITTED and ticket.admitted_ns is None:
            ticket.admitted_ns = event.at_ns
        elif event.kind is EventKind.FIRST_TOKEN:
            ticket.first_ns = ticket.last_ns = event.at_ns
            self._metrics.prompt_tokens.inc(ticket.sequence.prompt_tokens)
            self._metrics.time_to_first_token.observe(_seconds(ticket.arrived_ns, event.at_ns))

    def _gain(self, ticket: Ticket, tokens: int) -> None:
        gained, ticket.tokens = tokens - ticket.tokens, tokens
        later = gained - (tokens == gained)  # the first token has no interval
        now_ns = self._engine.now_ns
        # Several tokens at once share the time since the last one equally.
        for _ in range(later):
            self._metrics.inter_token_latency.observe(_seconds(ticket.last_ns, now_ns) / later)
        ticket.last_ns = now_ns
        self._metrics.generation_tokens.inc(gained)
        if ticket.over:
            self._end(ticket)
        ticket.changed.set()

    def _end(self, ticket: Ticket) -> None:
        del self._tickets[ticket.sequence]
        metrics, tokens = self._metrics, ticket.tokens
        decode_s = _seconds(ticket.first_ns, ticket.last_ns)
        metrics.success[ticket.finish].inc()
        metrics.request_prompt_tokens.observe(ticket.sequence.prompt_tokens)
        metrics.request_generation_tokens.observe(tokens)
        metrics.request_preemptions.observe(ticket.preemptions)
        metrics.e2e_latency.observe(_seconds(ticket.arrived_ns, ticket.last_ns))
        metrics.queue_time.observe(_seconds(ticket.arrived_ns, ticket.admitted_ns or 0))
        metrics.time_per_output_token.observe(decode_s / (tokens - 1) if tokens > 1 else 0)


def _seconds(start_ns: int, end_ns: int) -> float:
    """Return a duration, at least 0: an arrival may fall within the iteration that serves it."""
    return max(0, end_ns - start_ns) / _NS_PER_S
