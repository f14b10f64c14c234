"""Change the settings of a running service: on SIGHUP, or when their file has changed.

Invariant: a file with a fault changes nothing; what a restart needs stays as it was, and is named.
"""

import asyncio
import enum
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from extproc.config.changes import changes, told
from extproc.config.errors import UserError
from extproc.config.keys import Place
from extproc.config.settings import Settings
from extproc.service.pool_watch import prepare
from extproc.service.repeating import beside
from extproc.stream.metrics import WorkerMetrics
from extproc.tokenizer_file import Signature, signature_of

EVERY_S: Final = 2.0
"""How often the file is looked at."""
SETTLED_S: Final = 0.2
"""How long the file must be the same after a SIGHUP."""
_MOST_LOOKS: Final = 25

_NEED_RESTART: Final = (
    "listen",
    "state",
    "state_password_file",
    "state_ca_file",
    "tracing",
    "workers",
)
# Bounds of the servers, which follow from Envoy's configuration.
_BOUNDS: Final = (("envoy", "message_timeout_ms"), ("envoy", "large_body_bytes"))
_ENVOYS: Final = ("pools", "rows", "shadow", "envoy")

_log = logging.getLogger(__name__)

_Signature = tuple[int, int, int, int]


class Outcome(enum.Enum):
    """What became of a file."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class Source:
    """Where the settings come from: `read` reads a file, and adds the flags of the command."""

    def __init__(self, path: Path | None, read: Callable[[], Settings]) -> None:
        """Take the file's path; None: there is none, and the settings are the defaults."""
        self._path, self._read = path, read
        self._loaded = self._seen = _signature(path)

    def load(self) -> Settings:
        """Read the settings. Raises UserError with every fault."""
        self._loaded = _signature(self._path)
        return self._read()

    def has_changed(self) -> bool:
        """Return whether another file is there than was loaded; call it at intervals.

        It must be the same twice: whoever writes it in place may not have finished.
        """
        before, self._seen = self._seen, _signature(self._path)
        return self._seen is not None and self._seen == before != self._loaded

    async def settle(self) -> None:
        """Wait until the file stays the same: whoever writes it in place may not have finished.

        A part of a file can be valid, with fewer pools.
        """
        before = _signature(self._path)
        for _ in range(_MOST_LOOKS):
            await asyncio.sleep(SETTLED_S)
            now = _signature(self._path)
            if now == before:
                return
            before = now


class Reloader:
    """Loads the settings again and passes what has changed to `apply`, on the event loop.

    `apply` raises UserError, and changes nothing then, if the settings cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        apply: Callable[[Settings], None],
        metrics: WorkerMetrics,
    ) -> None:
        self._settings, self._source, self._apply = settings, source, apply
        self._metrics = metrics
        self._reloading = asyncio.Lock()
        self._hangups = asyncio.Event()
        self._tokenizers = _tokenizers(settings)
        for outcome in Outcome:
            metrics.reloads.labels(outcome.value)
        metrics.reloaded.set(time.time())

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Reload on SIGHUP and after changes of the file while the block runs."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hangups.set)
        async with beside(self._watch(), self._obey()):
            yield

    async def reload(self) -> Outcome:
        """Load the settings and apply what has changed; log and count what became of it."""
        async with self._reloading:
            try:
                # In a thread: a large file takes longer to parse than a request may wait.
                outcome = self._use(await asyncio.to_thread(self._load))
            except UserError as error:
                _log.error("the settings are not changed, because of their faults:\n%s", error)
                outcome = Outcome.REFUSED
            except Exception:  # noqa: BLE001 - whatever a file holds, what runs serves on
                _log.exception("the settings are not changed: they cannot be loaded")
                outcome = Outcome.REFUSED
            self._metrics.reloads.labels(outcome.value).inc()
            return outcome

    def _load(self) -> Settings:
        loaded = self._source.load()
        prepare(loaded)
        return loaded

    async def _obey(self) -> None:
        while True:
            await self._hangups.wait()
            self._hangups.clear()
            await self._source.settle()
            await self.reload()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if self._source.has_changed():
                await self.reload()

    def _use(self, loaded: Settings) -> Outcome:
        kept = {key: getattr(self._settings, key) for key in _NEED_RESTART}
        usable = loaded.model_copy(update=kept)
        tokenizers = _tokenizers(usable)
        changed = changes(self._settings, usable)
        for place, found in tokenizers.items():
            if self._tokenizers.get(place, found) != found:
                changed.setdefault(place, "the file has changed")
        waiting = {
            place: text
            for place, text in changes(self._settings, loaded).items()
            if place[0] in _NEED_RESTART or place in _BOUNDS
        }
        if waiting:
            _log.warning("changed in the file, in use after a restart: %s", told(waiting))
        if not changed:
            _log.info("the settings are loaded: none of those in use has changed")
            return Outcome.UNCHANGED
        self._apply(usable)
        self._settings, self._tokenizers = usable, tokenizers
        self._metrics.reloaded.set(time.time())
        _log.info("the settings are changed: %s%s", told(changed), _advice(changed))
        return Outcome.APPLIED


def _tokenizers(settings: Settings) -> dict[Place, Signature | None]:
    return {
        ("models", index, "tokenizer"): signature_of(Path(model.tokenizer))
        for index, model in enumerate(settings.models)
        if model.tokenizer
    }


def _advice(changed: dict[Place, str]) -> str:
    if any(place[0] in _ENVOYS for place in changed):
        return "; Envoy's configuration holds some of it: render it again (dualpool config)"
    return ""


def _signature(path: Path | None) -> _Signature | None:
    """Return what differs once a file, or a link on the way to it, was replaced or written to."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:  # between the two halves of a replacement
        return None
    # Unlike st_mtime, st_ctime also tells that its permissions were mended.
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size
