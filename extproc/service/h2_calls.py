"""The calls of a server on HTTP/2 framing of its own: ext_proc and health checks."""

from collections.abc import Mapping

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from extproc.service.places import Deadline
from extproc.service.streams import HEALTH, REPORTED, SERVICE, OpenStream
from extproc.transport.calls import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    OK,
    UNIMPLEMENTED,
    Call,
    Status,
)

PROCESS = f"/{SERVICE}/Process"

_CHECK = f"/{HEALTH}/Check"
_NOT_PARSED = Status(INVALID_ARGUMENT, "a message that cannot be parsed")
_UNKNOWN = Status(NOT_FOUND, "no such service")
_NO_SUCH_METHOD = Status(UNIMPLEMENTED, "no such method")


class ProcessCall:
    """A stream of ext_proc."""

    __slots__ = ("_deadlines", "_number", "_stream", "receive")

    def __init__(self, stream: OpenStream, number: int, deadlines: dict[int, Deadline]) -> None:
        """Remove its deadline from those of the connection, by its number, when it is closed."""
        self.receive = stream.receive
        self._stream, self._number, self._deadlines = stream, number, deadlines

    @property
    def status(self) -> Status | None:
        """OK once the service ends the stream."""
        return OK if self._stream.finished else None

    def close(self) -> None:
        """Close the stream; idempotent."""
        self._deadlines.pop(self._number, None)
        self._stream.close()


class HealthChecks:
    """Opens health checks. Watching health is left out, as gRPC allows."""

    def __init__(self) -> None:
        self._health = dict.fromkeys(REPORTED, health_pb2.HealthCheckResponse.NOT_SERVING)

    def report(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        """Set the health of the server and its service."""
        self._health = dict.fromkeys(REPORTED, status)

    def open(self, path: str) -> Call | Status:
        """Open the call of a path."""
        return _HealthCheck(self._health) if path == _CHECK else _NO_SUCH_METHOD


class _HealthCheck:
    """One question for the health of a service."""

    def __init__(self, health: Mapping[str, int]) -> None:
        self._health = health
        self.status: Status | None = None

    def receive(self, message: bytes | memoryview) -> tuple[bytes, ...]:
        try:
            service = health_pb2.HealthCheckRequest.FromString(bytes(message)).service
        except DecodeError:
            self.status = _NOT_PARSED
            return ()
        if service not in self._health:
            self.status = _UNKNOWN
            return ()
        self.status = OK
        answer = health_pb2.HealthCheckResponse(status=self._health[service])
        return (answer.SerializeToString(),)

    def close(self) -> None:
        """Nothing is held."""
