"""`state: redis://...`: replicas learn from one log in a store, and hold the same.

The log decides (`state.log`); this module carries it: to the store, and to what is learnt here.

Invariant: no decision waits for the store, and no fault of it ends the service.
"""

import asyncio
import logging
import math
import random
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec
from prometheus_client import Counter

from extproc.budget.learner import Learner
from extproc.budget.values import Observation
from extproc.service.bounded_log import BoundedLog
from extproc.service.journal import Journal
from extproc.state.log import (
    Check,
    Diverged,
    Join,
    Log,
    Marks,
    decode_marks,
    how_to_join,
)
from extproc.state.snapshot import MOST_BYTES, Snapshot, Unusable, decode, encode
from extproc.stream.metrics import SharedMetrics

EVERY_S: Final = 0.1
"""How often the log is read: what a killed process may lose."""
RETRY_S: Final = 0.4
"""How long a store that fails is left alone, up to half more by chance."""
WAIT_S: Final = 1.0
"""How often a store is looked at whose state cannot be used, or is another's to begin."""
DRIFT_S: Final = 30.0
"""Without the log for so long, a replica learns what it observes by itself."""
CHECK_S: Final = 60.0
CHECK_AFTER: Final = 2000
CHECK_LEAST_S: Final = 10.0
"""A checkpoint is due CHECK_S after the last one, up to a third more by chance, or after so many
observations, but not before CHECK_LEAST_S."""
RETUNED_S: Final = 1.0
"""A checkpoint is due so long after the last one if this replica has had other windows since, and a
second one CHECK_LEAST_S later, which tells whether all hold the same."""
LEAVE_S: Final = 2.0
"""How long the last observations may take at the end, and the first snapshot at the start."""

_log = logging.getLogger(__name__)


class StoreError(Exception):
    """The store failed or refused; the text has no part of what was sent to it."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where the store is, and as whom to use it; with a `master`, where one of its Sentinels is."""

    host: str
    port: int
    database: int = 0
    user: str = ""
    password_file: Path | None = None
    """Read for each connection, so that a password may change."""
    tls: bool = False
    ca_file: Path | None = None
    """The CA that the server's certificate is of; None: those of the system."""
    master: str = ""
    """What Sentinels call the store."""
    sentinels: tuple[tuple[str, int], ...] = ()
    """Further Sentinels."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A snapshot in the store, taken behind the entry at `position`."""

    position: str
    marks: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """What a replica finds that has no place in the log."""

    stored: Stored | None
    content: bytes | None
    """Of the entry at its position; None if the log does not have it."""
    empty: bool
    """Whether there is neither a snapshot nor a log."""


class Store(Protocol):
    """Holds one log and one snapshot. All methods raise StoreError, within a bounded time."""

    most_read: int
    """The most entries that `exchange` returns."""

    async def exchange(self, entries: Sequence[bytes], position: str) -> list[tuple[str, bytes]]:
        """Append to the log if there is one, then read it from a position on, that included."""

    async def find(self) -> Found:
        """Read the snapshot."""

    async def save(self, stored: Stored) -> None:
        """Store a snapshot unless a later one is there; trim the log to the one before."""

    async def seed(self, found: Found, marks: bytes, data: bytes) -> None:
        """Begin another log with a snapshot, if the store is still as it was found."""

    async def close(self) -> None:
        """Close the connections. Raises nothing."""


class SharedState:
    """One replica's part in the shared state."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        mark: Callable[[], bytes],
        build: Callable[[], Learner],
        metrics: SharedMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mark` tells the fingerprint of the snapshots, `build` makes a learner to load them."""
        self._store, self._journal = store, journal
        self._mark, self._build, self._metrics, self._clock = mark, build, metrics, clock
        self.log = Log(lambda: secrets.token_bytes(8))
        self._unusable = BoundedLog(_log, logging.WARNING, clock, most=1)
        # It is asked twice a second while it is away.
        self._outages = BoundedLog(_log, logging.WARNING, clock, most=1)
        self._failed = 0  # cycles in a row
        self._stopping = asyncio.Event()
        self._joined = asyncio.Event()
        self._apart_since = clock()
        self._waiting_since: float | None = None
        self._answers = False
        # At once: the digests of a checkpoint tell who is there, and whether all hold the same.
        self._proposed_at = -math.inf
        self._patience_s = CHECK_S
        self._sooner = deque[float]()
        self._retunes = 0
        self._snapshot_digest = ""
        self._counted = 0, 0  # what was lost and unsound of the log
        self.on_replicas: Callable[[int], None] = lambda _: None
        """Is told how many replicas there are."""

    def observe(self, seen: Observation) -> None:
        """Take what was observed here; it is learnt once the log has it."""
        if self.log.add(seen):
            self._journal.apply(seen)

    def retuned(self) -> None:
        """Take note that what is learnt here is for other windows or settings than before.

        Replicas that get them at different moments hold something else from then on, until they
        load one snapshot.
        """
        self._retunes += 1
        self._sooner = deque((RETUNED_S, CHECK_LEAST_S))

    @property
    def _is_connected(self) -> bool:
        # While the store is away, the place in its log is kept for it.
        return self.log.position is not None and self._answers

    @property
    def _agrees(self) -> bool:
        return self._is_connected and self.log.agrees

    @property
    def saves(self) -> Counter:
        """The snapshots by outcome."""
        return self._metrics.kept.saved

    def describe(self) -> dict[str, object]:
        """Return what GET /state shows."""
        log = self.log
        return {
            "connected": self._is_connected,
            "position": log.position or "",
            "checkpoint": log.checkpoint,
            "digest": self._snapshot_digest,
            "replicas": log.replicas,
            "agree": self._agrees,
            "pending": log.pending,
        }

    @asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """Share what is learnt within this context, and append the last of it at its end."""
        task = asyncio.create_task(self.run())
        with suppress(TimeoutError):  # ready with the others' state, if the store answers
            await asyncio.wait_for(self.joins(), LEAVE_S)
        try:
            yield
        finally:
            await self.leave(task)

    async def run(self) -> None:
        """Follow the log until `leave`; no fault of the store ends it."""
        while not self._stopping.is_set():
            try:
                await self.cycle()
                self._note_return()
                delay_s = EVERY_S if self._waiting_since is None else WAIT_S
            except StoreError as error:
                self._note_fault(error)
                self._failed += 1
                delay_s = RETRY_S * random.uniform(1.0, 1.5)  # noqa: S311 - spreads the replicas
            except Exception:  # noqa: BLE001 - whatever the store holds, the service goes on
                _log.exception("state: the log cannot be followed")
                self._metrics.faults.inc()
                self.log.lose_place()
                delay_s = DRIFT_S
            await self._drift_if_alone()
            self._show()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def leave(self, running: "asyncio.Task[None]") -> None:
        """End `run`, and append what was observed last."""
        self._stopping.set()
        try:
            async with asyncio.timeout(LEAVE_S):
                await running
                await self.flush()
        except (TimeoutError, StoreError):
            pass  # counted below
        except Exception:  # noqa: BLE001 - as in run
            _log.exception("state: the last observations cannot be appended")
        if self.log.pending:
            _log.warning("state: %d observations were not appended", self.log.pending)
        await self._store.close()

    async def joins(self) -> None:
        """Wait until it has learnt what the others know, for the first time."""
        await self._joined.wait()

    async def cycle(self) -> None:
        """Append and read once. Raises StoreError."""
        if self.log.position is None:
            await self._join()
        if self.log.position is not None:
            await self._follow()

    async def flush(self) -> None:
        """Append all that was observed. Raises StoreError."""
        await self.cycle()
        while self.log.pending and self.log.position is not None:
            await self.cycle()

    async def _follow(self) -> None:
        entries = await self._exchange()
        while len(entries) == self._store.most_read and self.log.position is not None:
            entries = await self._exchange()
        if self.log.position is not None:
            self.log.settle()
            self._joined.set()
            self._propose_if_due()

    async def _exchange(self) -> list[tuple[str, bytes]]:
        position = self.log.position or ""
        entries = await self._store.exchange(self.log.due(), position)
        self._apart_since, self._answers = self._clock(), True
        if self.log.follows(entries):
            await self._read(entries[1:])
        else:
            _log.warning("state: the log was trimmed or replaced; loading the snapshot")
            self._lose_place("trimmed")
        return entries

    async def _read(self, entries: Sequence[tuple[str, bytes]]) -> None:
        for position, content in entries:
            match self.log.step(position, content):
                case Check(mine=mine):
                    await self._check(store=mine)
                case Diverged():
                    _log.warning("state: it differs from the snapshot at %s", self.log.checkpoint)
                    self._lose_place("diverged")
                    return
                case seen:
                    await self._journal.apply_all(seen)

    def _lose_place(self, reason: str) -> None:
        self._metrics.reloads.labels(reason).inc()
        self.log.lose_place()
        # Not at once if it diverged: one whose settings differ from the others' would again.
        self._proposed_at = self._clock() if reason == "diverged" else -math.inf

    def _propose_if_due(self) -> None:
        elapsed_s = self._clock() - self._proposed_at
        many = self.log.since >= CHECK_AFTER and elapsed_s > CHECK_LEAST_S
        if many or elapsed_s > (self._sooner[0] if self._sooner else self._patience_s):
            self.log.propose()
            if self._sooner:
                self._sooner.popleft()
            self._proposed_at = self._clock()
            self._patience_s = CHECK_S * random.uniform(1.0, 4 / 3)  # noqa: S311 - as above

    async def _check(self, *, store: bool) -> None:
        position, marks = self.log.checkpoint, self.log.marks
        async with self._journal.held():
            snapshot = await self._journal.take()
        self._snapshot_digest = await asyncio.to_thread(lambda: snapshot.digest)
        stored = store and await self._save(position, marks, snapshot)
        self.log.checked(self.log.digest_with(self._snapshot_digest), stored=stored)
        self._proposed_at = self._clock()

    async def _save(self, position: str, marks: bytes, snapshot: Snapshot) -> bool:
        data = await asyncio.to_thread(self._encode, snapshot)
        if len(data) > MOST_BYTES:
            self._metrics.kept.note_lost("too_large")
            return False
        try:
            await self._store.save(Stored(position, marks, data))
        except StoreError as error:
            self._note_fault(error)
            self._metrics.kept.note_lost("failed")
            return False
        self._metrics.kept.note_saved(len(data))
        return True

    def _encode(self, snapshot: Snapshot) -> bytes:
        return b"".join(encode(snapshot, self._mark()))

    async def _join(self) -> None:
        found, retunes = await self._store.find(), self._retunes
        loaded = await asyncio.to_thread(self._decode, found)
        waiting_since = self._clock() if self._waiting_since is None else self._waiting_since
        self._waiting_since = waiting_since
        how = how_to_join(
            usable=loaded is not None,
            empty=found.empty,
            was_in=self.log.was_in,
            waited_s=self._clock() - waiting_since,
        )
        if loaded is not None and found.stored is not None and found.content is not None:
            async with self._journal.held():
                if self._retunes == retunes:  # else it was decoded for other windows
                    self._load(*loaded, found.stored.position, found.content)
        elif how is Join.SEED:
            await self._seed(found)

    def _decode(self, found: Found) -> tuple[Learner, Marks] | None:
        if found.stored is None or found.content is None:
            return None
        try:
            learner, marks = self._build(), decode_marks(found.stored.marks)
            decode(found.stored.data, self._mark()).load(learner)
        except (Unusable, msgspec.MsgspecError, ValueError) as error:
            fault = error.fault.value if isinstance(error, Unusable) else "corrupt"
            self._metrics.kept.unusable.labels(fault).inc()
            self._unusable.write("state: the stored snapshot is %s", fault)
            return None
        return learner, marks

    def _load(self, learner: Learner, marks: Marks, position: str, content: bytes) -> None:
        # Nothing waits in between: what is held back is learnt after the snapshot.
        self._journal.load(learner)
        self.log.join(position, content, marks)
        self._waiting_since = None
        _log.info("state: continuing from the snapshot at %s", position)

    async def _seed(self, found: Found) -> None:
        async with self._journal.held():
            marks = self.log.marks
            snapshot = await self._journal.take()
        data = await asyncio.to_thread(self._encode, snapshot)
        await self._store.seed(found, marks, data)
        self._waiting_since = None
        _log.info("state: the store had no state that can be used; it has this replica's now")

    async def _drift_if_alone(self) -> None:
        if not self.log.is_adrift and self._clock() - self._apart_since > DRIFT_S:
            _log.warning("state: without the log; learning alone until it is back")
            await self._journal.apply_all(self.log.drift())

    def _show(self) -> None:
        log, metrics = self.log, self._metrics
        metrics.connected.set(self._is_connected)
        metrics.replicas.set(log.replicas)
        self.on_replicas(log.replicas)
        metrics.agrees.set(self._agrees)
        metrics.pending.set(log.pending)
        metrics.dropped.inc(log.lost - self._counted[0])
        metrics.unsound.inc(log.unsound - self._counted[1])
        self._counted = log.lost, log.unsound

    def _note_return(self) -> None:
        if self._failed:
            _log.info("state: the store answers again, after %d failures", self._failed)
            self._failed = 0

    def _note_fault(self, error: StoreError) -> None:
        self._waiting_since, self._answers = None, False
        self._metrics.faults.inc()
        self._outages.write("state: %s; going on from memory", error)
