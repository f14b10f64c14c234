"""The state of one open stream and of its two windows."""

from collections import deque
from typing import Final

from extproc.transport.calls import Call, Status
from extproc.transport.messages import MessageReader

STREAM_WINDOW: Final = 1 << 22
"""Bytes that a peer may send on a stream before we answer; Envoy's default for large bodies."""


class H2Stream:
    """One stream. Once `status` is set, only what is in the queue is left to send."""

    __slots__ = (
        "call",
        "credit",
        "held_bytes",
        "number",
        "queue",
        "reader",
        "spoken",
        "started",
        "status",
        "window",
    )

    def __init__(self, number: int, call: Call, window: int) -> None:
        self.number = number
        self.call = call
        self.window = window  # bytes that we may send
        self.credit = STREAM_WINDOW  # bytes that the peer may send
        # Both are made when they are needed: most messages come whole, and most replies fit.
        self.reader: MessageReader | None = None
        self.queue: deque[memoryview] | None = None  # for want of a window
        self.held_bytes = 0  # of the reader, as the connection has counted them
        self.started = False  # our headers are sent
        self.spoken = False  # a message came
        self.status: Status | None = None

    @property
    def ended(self) -> bool:
        """Whether `status` is set: mypy does not see that a call between two looks may set it."""
        return self.status is not None
