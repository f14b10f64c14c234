"""One ext_proc stream: the session and the exchange joined, messages in and replies out.

Invariant: a fault of the service, wherever it occurs, lets the request pass on unchanged. This is
the only place in the core that catches every exception.
"""

import enum

from google.protobuf.message import DecodeError

from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.stream.exchange import Exchange, Stages
from extproc.stream.session import Action, Event, Proceed, ProtocolError, Session


class StreamOutcome(enum.Enum):
    """How a stream ended."""

    FINISHED = "finished"
    LEFT = "left"  # Envoy, or the client behind it, went away
    # The same while a body of unstated length was due, or gRPC refused its message as too large.
    LEFT_CHUNKED = "left_chunked"
    PROTOCOL = "protocol"  # Envoy broke the protocol
    FAULT = "fault"  # the service failed


class Stream:
    """Pass each message to `receive` and send what it returns; end the stream once `finished`.

    Call `close` however it ended. `error` is what went wrong, for the log.
    """

    def __init__(self, stages: Stages) -> None:
        self.error: Exception | None = None
        self._session = Session(stages.header_names)
        self._exchange = Exchange(stages)
        self._metrics = stages.metrics
        self._broken = False  # the session cannot tell what Envoy is owed
        self._open = True
        self._metrics.streams.inc()

    @property
    def finished(self) -> bool:
        """Whether the service should end the stream.

        If a stream ends without an error and without a reply, Envoy passes the request on: so it
        does after a violation of the protocol and after a fault of the session.
        """
        return self._session.finished or self._broken

    @property
    def awaits_request(self) -> bool:
        """Whether the rest of a request is due before anything can be decided."""
        return self._exchange.awaits_request

    def receive_encoded(self, data: bytes) -> list[bytes]:
        """Return the replies that are due after this message; both as they are sent."""
        try:
            message = ProcessingRequest.FromString(data)
        except DecodeError:
            fault = ProtocolError("a message that is not a ProcessingRequest")
            self.error, self._broken = self.error or fault, True
            return []
        return self.receive(message)

    def receive(self, message: ProcessingRequest) -> list[bytes]:
        """Return the replies that are due after this message."""
        try:
            return self._session.reply(self._act(self._session.receive(message)))
        except Exception as error:  # noqa: BLE001 - see the module's invariant
            self.error, self._broken = self.error or error, True
            return []

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
        self._metrics.streams.dec()
        self._metrics.streams_ended.labels(self._outcome(left).value).inc()

    def _act(self, event: Event) -> Action:
        if self.error:
            return Proceed()
        try:
            return self._exchange.on(event)
        except Exception as error:  # noqa: BLE001 - see the module's invariant
            self.error = error
            return Proceed()

    def _outcome(self, left: StreamOutcome) -> StreamOutcome:
        match self.error:
            case None:
                return StreamOutcome.FINISHED if self._session.finished else left
            case ProtocolError():
                return StreamOutcome.PROTOCOL
            case _:
                return StreamOutcome.FAULT
