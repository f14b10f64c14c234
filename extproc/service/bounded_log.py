"""Log faults that a peer can cause as often as it likes, at a bounded rate."""

import logging
from collections.abc import Callable
from typing import Final

MOST_LINES: Final = 10
PERIOD_S: Final = 60.0


class BoundedLog:
    """Logs at most `most` lines in each PERIOD_S, and then how many were left out."""

    def __init__(
        self, log: logging.Logger, level: int, clock: Callable[[], float], most: int = MOST_LINES
    ) -> None:
        self._log, self._level, self._clock, self._most = log, level, clock, most
        self._since = clock()
        self._seen = 0

    def write(self, message: str, *args: object, error: BaseException | None = None) -> None:
        """Log a line, with the traceback of `error`, unless too many were logged before it."""
        # Without a timer: what a period left out is logged by the first fault after it.
        if self._clock() - self._since >= PERIOD_S:
            self._begin_period()
        self._seen += 1
        if self._seen <= self._most:
            self._log.log(self._level, message, *args, exc_info=error)

    def _begin_period(self) -> None:
        if left_out := max(self._seen - self._most, 0):
            self._log.log(self._level, "%d more lines like the last were not logged", left_out)
        self._since, self._seen = self._clock(), 0


class BoundedRecords(logging.Filter):
    """Lets at most `most` records pass in each PERIOD_S: a filter of a logger of others."""

    def __init__(self, clock: Callable[[], float], most: int = MOST_LINES) -> None:
        super().__init__()
        self._clock, self._most = clock, most
        self._since, self._seen = clock(), 0

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        """Return whether there were few enough before it."""
        if self._clock() - self._since >= PERIOD_S:
            self._since, self._seen = self._clock(), 0
        self._seen += 1
        return self._seen <= self._most
