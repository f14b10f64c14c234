"""One ext_proc stream: the session and the exchange joined, messages in and replies out.

The rule it keeps: a fault of ours, wherever it lies, becomes a request that passes on unchanged.
This is the one place where any exception is caught.
"""

import enum

from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.stream.exchange import Exchange, Stages
from extproc.stream.session import Action, Event, Proceed, ProtocolError, Session


class Outcome(enum.Enum):
    """How a stream ended."""

    FINISHED = "finished"
    LEFT = "left"  # Envoy, or the client before it, went away
    PROTOCOL = "protocol"  # Envoy's side broke the protocol
    FAULT = "fault"  # ours


class Stream:
    """Give `receive` each message and send what it returns; end the stream once `finished`.

    Call `close` however it ended. `error` is what went wrong, for the log.
    """

    def __init__(self, stages: Stages) -> None:
        self.error: Exception | None = None
        self._session = Session()
        self._exchange = Exchange(stages)
        self._metrics = stages.metrics
        self._open = True
        self._metrics.streams.inc()

    @property
    def finished(self) -> bool:
        """Whether nothing more is to come.

        After a ProtocolError too: Envoy takes a stream that ends without an error and without an
        answer as leave to pass the request on.
        """
        return self._session.finished or isinstance(self.error, ProtocolError)

    def receive(self, message: ProcessingRequest) -> list[ProcessingResponse]:
        """Return the replies owed after this message."""
        try:
            event = self._session.receive(message)
        except ProtocolError as error:
            self.error = error
            return []
        return self._session.reply(self._act(event))

    def close(self) -> None:
        """Learn what there is to learn, and count the end; idempotent, and never waits."""
        if not self._open:
            return
        self._open = False
        try:
            self._exchange.finish()
        except Exception as error:  # noqa: BLE001 - see the module's rule
            self.error = error
        self._metrics.streams.dec()
        self._metrics.streams_ended.labels(self._outcome().value).inc()

    def _act(self, event: Event) -> Action:
        if self.error:
            return Proceed()
        try:
            return self._exchange.on(event)
        except Exception as error:  # noqa: BLE001 - see the module's rule
            self.error = error
            return Proceed()

    def _outcome(self) -> Outcome:
        match self.error:
            case None:
                return Outcome.FINISHED if self._session.finished else Outcome.LEFT
            case ProtocolError():
                return Outcome.PROTOCOL
            case _:
                return Outcome.FAULT
