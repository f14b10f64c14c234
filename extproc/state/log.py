"""The log that replicas share, without I/O: what is applied of it, sent again, and loaded again.

An entry holds observations of one origin, which are numbered without gaps, a checkpoint, or what a
replica held at one. All replicas read all entries in one order, and continue from one snapshot.

Invariants: the observations of an origin are applied once, in the order of their numbers, by every
replica at the same place of the log; memory is bounded; hostile entries are passed over by all.
"""

import enum
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from extproc.budget.saved import Count
from extproc.budget.values import Observation
from extproc.routing.sound import is_observation

VERSION: Final = 2
"""Of the entries: count it up when their meaning changes."""
MOST_KEPT: Final = 10_000
"""Own observations that are kept to be sent again, of about a kilobyte each."""
MOST_ORIGINS: Final = 1024
"""Origins whose numbers are known; each start of a replica is one."""
AT_ONCE: Final = 512
"""Observations that are appended before the log is read again."""
_IN_ENTRY: Final = 64
_MOST_BYTES: Final = 1 << 20
_START: Final = "0-0"

Origin = Annotated[bytes, Meta(min_length=8, max_length=8)]
Position = Annotated[str, Meta(max_length=48, pattern=r"\A[0-9]{1,20}-[0-9]{1,20}\Z")]
_Digest = Annotated[bytes, Meta(max_length=32)]


class Observed(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Observations of one origin, `first` being the number of the first of them."""

    origin: Origin
    first: Annotated[int, Meta(ge=1, le=1 << 53)]
    seen: Annotated[list[Observation], Meta(max_length=_IN_ENTRY)]


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """All replicas are to digest what they hold here. It counts if `after` is the last one."""

    origin: Origin
    after: Position


class Report(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """What a replica held at a checkpoint, and whether a snapshot of it is stored."""

    origin: Origin
    at: Position
    digest: _Digest
    stored: bool


class Marks(msgspec.Struct, array_like=True):
    """What all replicas know of the log beside what they learn from it."""

    origins: Annotated[dict[Origin, Count], Meta(max_length=MOST_ORIGINS)]
    """The last number applied of each, the origin that was applied last at the end."""
    checkpoint: Position = _START


class Check(msgspec.Struct, frozen=True):
    """Digest what is held now, and pass it to `Log.checked`."""

    mine: bool
    """Whether this replica is to store a snapshot of it."""


class Diverged(msgspec.Struct, frozen=True):
    """What is held is not what is in the stored snapshot: load that."""


Action = tuple[Observation, ...] | Check | Diverged
"""What an entry asks for: observations to learn, maybe none, or one of the others."""


class Join(enum.Enum):
    """How a replica that has no place in the log gets one."""

    LOAD = "load"  # the stored snapshot
    SEED = "seed"  # store its own as the first, and begin a log with it
    WAIT = "wait"


_ENCODER: Final = msgspec.msgpack.Encoder()
_ENTRY: Final = msgspec.msgpack.Decoder(Observed | Checkpoint | Report)
_MARKS: Final = msgspec.msgpack.Decoder(Marks)
_SEEN: Final = msgspec.msgpack.Decoder(Observation)

FRESH_S: Final = 5.0
"""How long one that was never in the log leaves an empty store to those that were."""
BROKEN_S: Final = 200.0
"""How long a store is left alone whose snapshot cannot be used: others may store one."""


def how_to_join(*, usable: bool, empty: bool, was_in: bool, waited_s: float) -> Join:
    """Choose. `usable`: there is a snapshot, and its place in the log; `empty`: neither."""
    if usable:
        return Join.LOAD
    patience = (0.0 if was_in else FRESH_S) if empty else BROKEN_S
    return Join.SEED if waited_s >= patience else Join.WAIT


def order_of(position: str) -> tuple[int, int]:
    """Return what compares as positions do."""
    time, _, number = position.partition("-")
    return int(time), int(number)


def decode_marks(data: bytes) -> Marks:
    """Read Log.marks. Raises msgspec.MsgspecError."""
    return _MARKS.decode(data)


class Log:
    """One replica's view of the log. `name` returns a new origin, random."""

    def __init__(self, name: Callable[[], bytes]) -> None:
        self._name = name
        self.origin = name()
        self._kept = deque[bytes]()  # own observations, encoded
        self._first = 1  # the number of the first of them
        self._applied = 0  # of this origin, the highest number that the log was seen to have
        self._to_append = list[bytes]()  # checkpoints and reports
        self._marks = Marks({})
        self.position: str | None = None
        """Of the last entry that was read; None: without a place in the log."""
        self._content = b""
        self.was_in = self.is_adrift = False
        self._caught_up = False
        self._digest = b""  # at the last checkpoint; empty: not known
        self._reports = dict[bytes, bytes]()
        self._replicas_before = 0
        self._agreed_before = False
        self.lost = 0
        """Own observations that were dropped before the log had them."""
        self.unsound = 0
        """Entries and observations of the log that were passed over."""
        self.since = 0
        """Observations since the last checkpoint, or since one was proposed here."""

    @property
    def marks(self) -> bytes:
        """What belongs to a snapshot taken now."""
        return _ENCODER.encode(self._marks)

    @property
    def checkpoint(self) -> str:
        """The position of the last checkpoint."""
        return self._marks.checkpoint

    @property
    def replicas(self) -> int:
        """How many replicas there are, by who reported at the last two checkpoints; at least 1."""
        return max(1, len(self._reports), self._replicas_before)

    @property
    def agrees(self) -> bool:
        """Whether all that reported at the last checkpoint held the same as this one.

        Until as many have reported as at the checkpoint before, the answer for that one.
        """
        if len(self._reports) < max(1, self._replicas_before):
            return self._agreed_before
        return bool(self._digest) and set(self._reports.values()) <= {self._digest}

    @property
    def pending(self) -> int:
        """Own observations that the log was not seen to have."""
        had = self._next_kept()
        if self.is_adrift:
            had = min(had, max(0, self._applied + 1 - self._first))
        return len(self._kept) - had

    def add(self, seen: Observation) -> bool:
        """Take an own observation; return whether it is to be learnt at once, without the log."""
        if not is_observation(seen):  # no replica would learn it
            self.unsound += 1
            return False
        self._kept.append(_ENCODER.encode(seen))
        if len(self._kept) > MOST_KEPT:
            self._kept.popleft()
            self._first += 1
        if self.is_adrift:
            self._note_applied(self.origin, self._last())
        return self.is_adrift

    def drift(self) -> Iterator[Observation]:
        """Learn without the log from now on; yield what waits for it.

        All of it is appended later as well: the snapshot that is loaded then does not have it.
        """
        waiting = list(islice(self._kept, self._next_kept(), None))
        self.lose_place()
        self.is_adrift = True
        self._note_applied(self.origin, self._last())
        return map(_SEEN.decode, waiting)

    def lose_place(self) -> None:
        """Have no place in the log: it was trimmed or replaced, or what is held is not its."""
        self.position = None
        self._caught_up = False
        self._to_append.clear()

    def join(self, position: str, content: bytes, marks: Marks) -> None:
        """Continue behind the entry of a snapshot that was loaded."""
        self.position, self._content, self._marks = position, content, marks
        self.was_in, self.is_adrift, self._caught_up = True, False, False
        self._digest = b""
        self.since = 0

    def propose(self) -> None:
        """Have a checkpoint appended; of several that are proposed at once, the first counts."""
        self.since = 0
        proposal = Checkpoint(self.origin, self._marks.checkpoint)
        self._to_append.append(_ENCODER.encode(proposal))

    def due(self) -> list[bytes]:
        """Return entries to append now; `settle` finds out what became of them."""
        if not self._caught_up:
            return []
        self._caught_up = False  # not before it is known what became of these
        entries, self._to_append = self._to_append, []
        begin = self._next_kept()
        waiting = list(islice(self._kept, begin, begin + AT_ONCE))
        for start in range(0, len(waiting), _IN_ENTRY):
            raw = [msgspec.Raw(each) for each in waiting[start : start + _IN_ENTRY]]
            first = self._first + begin + start
            entries.append(_ENCODER.encode((0, self.origin, first, raw)))
        return entries

    def follows(self, entries: Sequence[tuple[str, bytes]]) -> bool:
        """Return whether entries read from `position` on begin with the entry read last."""
        return bool(entries) and entries[0] == (self.position, self._content)

    def step(self, position: str, content: bytes) -> Action:
        """Read the next entry; do what is returned before the next one."""
        self.position, self._content = position, content
        try:
            entry = _ENTRY.decode(content[:_MOST_BYTES])  # a longer one is cut, and no entry
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.unsound += 1
            return ()
        match entry:
            case Observed():
                return self._take(entry)
            case Checkpoint():
                return self._check(entry, position)
            case _:
                return self._compare(entry)

    def checked(self, digest: bytes, *, stored: bool) -> None:
        """Report what is held at the last checkpoint."""
        self._digest = digest
        report = Report(self.origin, self._marks.checkpoint, digest, stored)
        self._to_append.append(_ENCODER.encode(report))

    def settle(self) -> None:
        """Take note that the log was read to its end: what it does not have is due again.

        It is due under a new origin if the next number of this one is not kept, or not known.
        """
        self._caught_up = True
        applied = self._marks.origins.get(self.origin, 0)
        if not self._is_forgotten() and self._first - 1 <= applied <= self._last():
            self._applied = max(self._applied, applied)
            return
        if self._is_forgotten() or applied > self._last():
            applied = self._applied
        self.lost += max(0, self._first - 1 - applied)
        for _ in range(min(len(self._kept), max(0, applied + 1 - self._first))):
            self._kept.popleft()
        self.origin, self._first, self._applied = self._name(), 1, 0

    def digest_with(self, learnt: str) -> bytes:
        """Return a digest of what is held: of the marks, and of what was learnt."""
        return blake2b(self.marks + learnt.encode(), digest_size=16).digest()

    def _take(self, entry: Observed) -> tuple[Observation, ...]:
        last = self._marks.origins.get(entry.origin, 0)
        end = entry.first + len(entry.seen) - 1
        if entry.first > last + 1 or end <= last:
            return ()  # after a gap, or again
        self._note_applied(entry.origin, end)
        new = entry.seen[last + 1 - entry.first :]
        self.since += len(new)
        sound = tuple(filter(is_observation, new))
        self.unsound += len(new) - len(sound)
        return sound

    def _check(self, entry: Checkpoint, position: str) -> Action:
        if entry.after != self._marks.checkpoint:
            return ()
        self._marks.checkpoint = position
        self._agreed_before = self.agrees
        self._replicas_before = len(self._reports)
        self._reports = {}
        self._digest = b""
        self.since = 0
        return Check(mine=entry.origin == self.origin)

    def _compare(self, entry: Report) -> Action:
        if entry.at != self._marks.checkpoint or len(self._reports) >= MOST_ORIGINS:
            return ()
        self._reports[entry.origin] = entry.digest
        differs = self._digest not in {b"", entry.digest}
        return Diverged() if entry.stored and differs else ()

    def _note_applied(self, origin: bytes, number: int) -> None:
        origins = self._marks.origins
        origins.pop(origin, None)
        origins[origin] = number
        if len(origins) > MOST_ORIGINS:
            del origins[next(iter(origins))]

    def _is_forgotten(self) -> bool:
        """Return whether so many others were applied since that the number is not known."""
        origins = self._marks.origins
        known = self.origin in origins or len(origins) < MOST_ORIGINS
        return self._applied > 0 and not known

    def _last(self) -> int:
        return self._first + len(self._kept) - 1

    def _next_kept(self) -> int:
        """Return the index of the first own observation that the log is not known to have."""
        applied = self._marks.origins.get(self.origin, 0)
        return min(len(self._kept), max(0, applied + 1 - self._first))
