"""`state: file:PATH`: a file that holds the last snapshot of what was learnt.

Invariant: the file is whole at any moment, and no fault of it ends the service: what cannot be used
is set aside under another name, and the service learns anew.
"""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from prometheus_client import Counter

from extproc.budget.learner import Learner
from extproc.service.journal import Journal
from extproc.service.repeating import beside
from extproc.state.snapshot import MOST_BYTES, Fault, Snapshot, Unusable, decode, encode
from extproc.stream.metrics import StateMetrics

EVERY_S: Final = 10.0
"""How often what was learnt meanwhile is saved."""

_FIX: Final = "create it, writable by the service"

# A write whose task was cancelled goes on in its thread; the next one must not take its new file.
_writing = Lock()

_log = logging.getLogger(__name__)


class StateFile:
    """The file of one service."""

    def __init__(
        self,
        path: Path,
        mark: Callable[[], bytes],
        build: Callable[[], Learner],
        metrics: StateMetrics,
    ) -> None:
        """`mark` tells the fingerprint of its snapshots, `build` makes a learner to load them."""
        # Where a link leads, so that it stays a link.
        self._path = Path(os.path.realpath(path))
        self._mark, self._build, self._metrics = mark, build, metrics
        self._saved = 0  # the changes of the journal that are in the file
        self._digest = ""  # of the last snapshot
        self._failing = False  # whether the last save failed

    @property
    def saves(self) -> Counter:
        """The snapshots by outcome."""
        return self._metrics.saved

    def describe(self) -> dict[str, object]:
        """Return what GET /state shows."""
        return {"digest": self._digest}

    def restore(self, journal: Journal) -> None:
        """Continue from the file, if there is one that can be used."""
        try:
            snapshot = decode(self._read(), self._mark())
            learner = self._build()
            snapshot.load(learner)
        except FileNotFoundError:
            _log.info("state: %s does not exist yet", self._path)
            if fault := folder_fault(self._path):
                # Else the first save says so, when there is something to lose.
                _log.warning("state: %s", fault)
            return
        except OSError as error:
            _log.warning("state: %s cannot be read: %s", self._path, error.strerror)
            self._metrics.unusable.labels("unreadable").inc()
            return
        except Unusable as error:
            self._set_aside(error.fault)
            return
        journal.load(learner)
        self._saved = journal.changes
        self._digest = snapshot.digest
        _log.info("state: continuing from %s, digest %s", self._path, snapshot.digest)

    async def save(self, journal: Journal) -> None:
        """Save what was learnt, if anything was since the last time."""
        if journal.changes == self._saved:
            return
        try:
            await self._save(journal)
        except OSError as error:
            text = "state: %s cannot be written: %s; if the folder %s is absent, %s"
            _log.warning(text, self._path, error.strerror, self._path.parent, _FIX)
            self._metrics.note_lost("failed")
            self._failing = True
        except Exception:  # noqa: BLE001 - to lose a snapshot must not end the service
            _log.exception("state: no snapshot was taken")
            self._metrics.note_lost("failed")

    async def _save(self, journal: Journal) -> None:
        async with journal.held():
            changes, snapshot = journal.changes, await journal.take()
        size = await asyncio.to_thread(self._write, snapshot)
        self._saved = changes
        if size is None:
            _log.warning("state: what was learnt exceeds %d bytes; it is not saved", MOST_BYTES)
            self._metrics.note_lost("too_large")
        else:
            self._metrics.note_saved(size)
            if self._failing:
                _log.info("state: %s is saved again", self._path)
            self._failing = False

    async def keep(self, journal: Journal) -> None:
        """Save what is learnt until this is cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.save(journal)

    def _read(self) -> bytes:
        _require_file(self._path)
        with self._path.open("rb") as file:
            return file.read(MOST_BYTES + 1)

    def _write(self, snapshot: Snapshot) -> int | None:
        size = write_file(self._path, encode(snapshot, self._mark()))
        if size is not None:
            self._digest = snapshot.digest
        return size

    def _set_aside(self, fault: Fault) -> None:
        aside = self._path.with_name(f"{self._path.name}.{fault.value}")
        self._metrics.unusable.labels(fault.value).inc()
        try:
            self._path.replace(aside)
        except OSError as error:
            _log.warning(
                "state: %s is %s, and cannot be set aside: %s", self._path, fault, error.strerror
            )
        else:
            _log.warning("state: %s is %s; set aside as %s", self._path, fault, aside)


@asynccontextmanager
async def keeping(state: StateFile | None, journal: Journal) -> AsyncIterator[None]:
    """Continue from the state, save what is learnt within this context, and all at its end."""
    if state is None:
        yield
        return
    await asyncio.to_thread(state.restore, journal)
    try:
        async with beside(state.keep(journal)):
            yield
    finally:
        await state.save(journal)


def folder_fault(path: Path) -> str:
    """Return why this process cannot save a state at `path`, with the fix; "" if it can."""
    folder = Path(os.path.realpath(path)).parent
    usable = folder.is_dir() and os.access(folder, os.W_OK)
    return "" if usable else f"{folder} is absent or cannot be written; {_FIX}"


def write_file(path: Path, chunks: Iterable[bytes]) -> int | None:
    """Write a file whole or not at all; return its bytes, or None if there are too many.

    Only its owner may read it. Raises OSError.
    """
    with _writing:
        return _write_whole(path, chunks)


def _require_file(path: Path) -> None:
    """Raise OSError for a pipe or a device: to read it may block, to replace it may break more."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file")


def _write_whole(path: Path, chunks: Iterable[bytes]) -> int | None:
    _require_file(path)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # left by a process that was killed
    size = 0
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > MOST_BYTES:
                break
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if size > MOST_BYTES:
        new.unlink()
        return None
    new.replace(path)
    _sync(path.parent)
    return size


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
