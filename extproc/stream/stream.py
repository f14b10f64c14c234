"""One ext_proc stream: the session and the exchange joined, messages in and replies out.

Invariant: a fault of the service, wherever it occurs, lets the request pass on unchanged. This is
the only place in the core that catches every exception.
"""

import enum
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError

from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.stream.buffered import read_body, read_head
from extproc.stream.exchange import Exchange
from extproc.stream.observed import observed_heads, read_end
from extproc.stream.replies import Note, reply
from extproc.stream.session import Action, Proceed, ProtocolError, Session, Wait
from extproc.stream.stages import Stages
from extproc.stream.traced import Trace, TracedExchange

_Acted = TypeVar("_Acted")
_Given = TypeVar("_Given")


class StreamOutcome(enum.StrEnum):
    """How a stream ended."""

    FINISHED = "finished"
    LEFT = "left"  # Envoy, or the client behind it, went away
    # The same while a body of unstated length was due, or gRPC refused its message as too large.
    LEFT_CHUNKED = "left_chunked"
    PROTOCOL = "protocol"  # Envoy broke the protocol
    FAULT = "fault"  # the service failed


class Stream:
    """Pass each message to `receive` and send what it returns; end the stream once `finished`.

    Call `close` however it ended. `error` is what went wrong, for the log. If a stream ends without
    an error and without a reply, Envoy passes the request on: so it does after a violation of the
    protocol and after a fault of the session. `trace` is told what happens; None: nobody is.
    """

    __slots__ = (
        "_exchange",
        "_head",
        "_observes",
        "_open",
        "_session",
        "_stages",
        "error",
        "finished",
    )

    def __init__(self, stages: Stages, trace: Trace | None = None) -> None:
        self.error: Exception | None = None
        self.finished = False  # the service should end the stream
        self._stages = stages
        self._exchange = Exchange(stages) if trace is None else TracedExchange(stages, trace)
        # None as long as `buffered` or `observed` can read what comes; `_head` is what they have
        # read of it.
        self._session: Session | None = None
        self._head: bytes | None = None
        self._observes = False
        self._open = True
        stages.metrics.streams.now += 1

    @property
    def awaits_request(self) -> bool:
        """Whether the rest of a request is due before anything can be decided."""
        return self._exchange.awaits_request

    def receive_encoded(self, data: bytes | memoryview) -> list[bytes]:
        """Return the replies that are due after this message; both as they are sent."""
        try:
            if self._session is None and not self.finished:
                replies = self._receive_next(data) if self._head else self._receive_head(data)
                if replies is not None:
                    return replies
            message = ProcessingRequest.FromString(bytes(data))
        except DecodeError:
            return self._break(ProtocolError("a message that is not a ProcessingRequest"))
        except Exception as error:  # noqa: BLE001 - see the module's invariant
            return self._break(error)
        return self.receive(message)

    def receive(self, message: ProcessingRequest) -> list[bytes]:
        """Return the replies that are due after this message."""
        try:
            session = self._session or self._begin_session()
            event = session.receive(message)
            replies = session.reply(self._act(self._exchange.on, event))
        except Exception as error:  # noqa: BLE001 - see the module's invariant
            return self._break(error)
        self.finished |= session.finished
        return replies

    def close(self) -> None:
        """Learn from the exchange and count the end; idempotent, and never waits."""
        if not self._open:
            return
        self._open = False
        left = StreamOutcome.LEFT_CHUNKED if self._exchange.awaits_chunks else StreamOutcome.LEFT
        try:
            self._exchange.finish()
        except Exception as error:  # noqa: BLE001 - see the module's invariant
            self.error = error
        metrics = self._stages.metrics
        metrics.streams.now -= 1
        metrics.streams_ended.count(self._outcome(left))

    def _receive_head(self, data: bytes | memoryview) -> list[bytes] | None:
        data = bytes(data)
        read = read_head(data, self._stages.wanted)
        if read is None:
            return self._receive_observed(data)
        action = self._act(self._begin, read)
        if isinstance(action, Wait):
            self._head = data
            return [reply("request_headers")]
        self.finished = True
        return [reply("request_headers", action.set_headers, action.note)]

    def _receive_observed(self, data: bytes) -> list[bytes] | None:
        head = observed_heads(self._stages.header_names).read(data)
        if head is None:
            return None
        self._act(self._exchange.on, head)
        self._head, self._observes = data, True
        return []

    def _receive_next(self, data: bytes | memoryview) -> list[bytes] | None:
        return self._receive_end(data) if self._observes else self._receive_body(data)

    def _receive_end(self, data: bytes | memoryview) -> list[bytes] | None:
        end = read_end(data)
        if end is None:
            return None
        self._act(self._exchange.on, end)
        self.finished = True
        return []

    def _receive_body(self, data: bytes | memoryview) -> list[bytes] | None:
        body = read_body(data)
        if body is None:
            return None
        action = self._act(self._exchange.read_whole, body)
        self.finished = True
        if isinstance(action, bytes):
            return [action]
        return [reply("request_body", action.set_headers, action.note, action.body)]

    def _begin_session(self) -> Session:
        """Begin to read messages of all kinds, behind the one that was read already."""
        if self._observes and self.finished:
            raise ProtocolError("a message after the end of the response")
        self._session = session = Session(self._stages.header_names)
        if self._head:
            session.receive(ProcessingRequest.FromString(self._head))
            session.reply(Wait())
            self._head = None
        return session

    def _break(self, error: Exception) -> list[bytes]:
        """End the stream: the session cannot tell what Envoy is owed."""
        self.error, self.finished = self.error or error, True
        return []

    def _begin(self, read: tuple[dict[str, str], Note]) -> Action:
        headers, note = read
        return self._exchange.begin(headers, note)

    def _act(self, act: Callable[[_Given], _Acted], given: _Given) -> _Acted | Proceed:
        if self.error:
            return Proceed()
        try:
            return act(given)
        except Exception as error:  # noqa: BLE001 - see the module's invariant
            self.error = error
            return Proceed()

    def _outcome(self, left: StreamOutcome) -> StreamOutcome:
        match self.error:
            case None:
                return StreamOutcome.FINISHED if self.finished else left
            case ProtocolError():
                return StreamOutcome.PROTOCOL
            case _:
                return StreamOutcome.FAULT
