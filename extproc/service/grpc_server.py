"""The server on grpc.aio: ext_proc, health and reflection on one address, with a bounded drain."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from extproc.protos import WELL_KNOWN
from extproc.protos.envoy.config.core.v3 import base_pb2
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from extproc.protos.envoy.service.ext_proc.v3 import external_processor_pb2
from extproc.protos.envoy.type.v3 import http_status_pb2
from extproc.service.bounded_log import BoundedRecords
from extproc.service.credentials import Certificates
from extproc.service.lateness import Lateness, SelfCheck
from extproc.service.listening import cannot_listen, socket_path, why_not
from extproc.service.places import Deadline
from extproc.service.streams import (
    HEALTH,
    REPORTED,
    SERVICE,
    TICK_S,
    TOO_MANY,
    Bounds,
    Streams,
)
from extproc.service.unix_socket import PathLock, for_owner_and_group, reserve
from extproc.stream.stages import Stages
from extproc.stream.traced import Trace

BeginTrace = Callable[[Iterable[tuple[str, str | bytes]]], Trace | None]

_EOF = grpc.aio.EOF  # type: ignore[attr-defined]
_SERVING = health_pb2.HealthCheckResponse.SERVING
_log = logging.getLogger(__name__)
# grpcio logs a traceback for each stream that ends while something is sent on it, as it does where
# a peer gives no window.
logging.getLogger("grpc._cython.cygrpc").addFilter(BoundedRecords(time.monotonic))


class GrpcServer:
    """Serves Envoy on one address with grpc.aio, over TLS if certificates are given."""

    def __init__(
        self,
        stages: Stages,
        address: str,
        bounds: Bounds,
        certificates: Certificates | None = None,
        begin_trace: BeginTrace | None = None,
    ) -> None:
        """`begin_trace` returns the trace of a stream with this metadata; None: it has none."""
        lateness = Lateness(bounds.late_s, time.monotonic)
        self._self_check = SelfCheck(lateness)
        self._streams = Streams(stages, bounds, lateness.is_over)
        self._address = address
        self._bounds = bounds
        self._certificates = certificates
        self._begin_trace = begin_trace
        self._path_lock: PathLock | None = None
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(options=_options(bounds))
        self._server.add_generic_rpc_handlers((self._handler(),))
        others = _Generic(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, others)
        aio = reflection.aio  # type: ignore[attr-defined]
        reflects = aio.ReflectionServicer((SERVICE, HEALTH), _described())
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflects, others)
        self._calls: set[PolledCall] = set()
        self._time = asyncio.get_running_loop().time
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; return the port (1 for a Unix socket). Raises OSError if that is impossible."""
        if path := socket_path(self._address):
            self._path_lock = reserve(path)
        try:
            with for_owner_and_group():
                port = self._add_port()
        except RuntimeError:
            reason = why_not(self._address)
            self._unlock_path()
            raise cannot_listen(self._address, "gRPC", reason) from reason
        if self._bounds.late_s < math.inf:
            self._self_check.listen(self._server)
        await self._server.start()
        self._self_check.start()
        self._ticking = asyncio.create_task(self._tick())
        await self._report(_SERVING)
        return port

    def use(self, stages: Stages) -> None:
        """Decide new streams by other stages; those that are open end under their own."""
        self._streams.use(stages)

    async def announce_end(self) -> None:
        """Report NOT_SERVING; keep serving."""
        await self._report(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def settle(self, answers_s: float, decisions_s: float) -> None:
        """Serve on while what is open now ends: answers for `answers_s`, then only decisions."""
        await self._streams.settle(answers_s, decisions_s)

    async def drain(self, seconds: float) -> None:
        """Refuse new streams, give open ones `seconds` to finish, then end them.

        Call it again to shorten the time.
        """
        await self.announce_end()
        await self._server.stop(seconds)
        await self._self_check.stop()
        if self._ticking is not None:
            self._ticking.cancel()
        self._unlock_path()

    def _unlock_path(self) -> None:
        if self._path_lock is not None:
            self._path_lock.release()

    def _add_port(self) -> int:
        if self._certificates is None:
            return self._server.add_insecure_port(self._address)
        return self._server.add_secure_port(self._address, self._certificates.credentials())

    async def _report(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in REPORTED:
            await self._health.set(service, status)

    def _handler(self) -> "grpc.GenericRpcHandler[bytes, bytes]":
        # Bytes both ways: gRPC would end a call whose message is none with an error that nobody
        # counts.
        process = grpc.stream_stream_rpc_method_handler(self._process)
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": process})

    async def _process(
        self, _: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> None:
        call = PolledCall(self._time() + self._bounds.first_message_s)
        # peer() is address and port, so one for each connection; all connections over a Unix socket
        # are `unix:`, one peer.
        begin = self._begin_trace
        trace = None if begin is None else begin(context.invocation_metadata() or ())
        stream = self._streams.open(context.peer(), call.deadline, trace)
        if stream is None:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY)
        self._calls.add(call)
        is_first = True
        try:
            # Not the iterator, which would be a generator more to go through.
            while (message := await context.read()) is not _EOF:
                for reply in stream.receive(message):
                    # Not `yield`: a time that ends while gRPC sends would end the call's task
                    # outside of this function, and the call would never get its status.
                    call.sends_first_reply = is_first
                    await context.write(reply)
                    call.sends_first_reply = is_first = False
                # Envoy would keep the stream open until the answer ends, and open streams count
                # against its cluster's max_requests (1024 by default).
                if stream.finished:
                    return
        except asyncio.CancelledError:
            # A peer that leaves the first reply on its way reads nothing. gRPC could not send a
            # status, and would log a traceback.
            if not call.was_ended() or call.sends_first_reply:
                raise
            _log.debug("ended a stream that was idle for too long or whose place was needed")
        finally:
            self._calls.discard(call)
            stream.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self._time()
            for call in [call for call in self._calls if call.deadline.at <= now]:
                call.end()


class PolledCall:
    """A call, made within its task; the server ends it once its deadline is over.

    The first reply is left a tick to be sent. gRPC sends the call's first metadata with it; were it
    cut off, gRPC would send them again with the status, fail, and never end the call.
    """

    __slots__ = ("_ended", "_task", "_waited", "deadline", "sends_first_reply")

    def __init__(self, at: float) -> None:
        """Set the deadline, in the event loop's time."""
        task = asyncio.current_task()
        assert task is not None, "a task serves the call"  # noqa: S101 - for the type
        self._task = task
        self._waited = self._ended = False
        self.deadline = Deadline(at)
        self.sends_first_reply = False

    def end(self) -> None:
        """Cancel the task; while the first reply is being sent, only when asked again."""
        if self.sends_first_reply and not self._waited:
            self._waited = True
        else:
            self._ended = True
            self._task.cancel()

    def was_ended(self) -> bool:
        """Return whether `end` has cancelled the task, and nobody else; ask once if it has."""
        return self._ended and not self._task.uncancel()


class _Generic:
    """A server with generic handlers alone.

    For each method that is registered grpc.aio waits for one more future at each call.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, *_: object) -> None:
        """Leave the methods to the generic handlers."""


def _options(bounds: Bounds) -> list[tuple[str, int]]:
    return [
        # gRPC's default, 4 MiB, would end the stream of every larger body with an error.
        ("grpc.max_receive_message_length", bounds.message_bytes),
        ("grpc.max_send_message_length", bounds.message_bytes),
        # With it a second server on the same port would silently get a part of the streams.
        ("grpc.so_reuseport", 0),
        # The defaults, 1000 and 3000, refuse bursts of streams that Envoy does open.
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 200_000),
        ("grpc.max_concurrent_streams", bounds.connection_streams),
        ("grpc.max_allowed_incoming_connections", bounds.connections),
        ("grpc.server_handshake_timeout_ms", _ms(bounds.handshake_s)),
        ("grpc.keepalive_time_ms", _ms(bounds.silence_s)),
        # grpcio 1.85 applies this one, by default a minute, and not keepalive_timeout_ms.
        ("grpc.http2.ping_timeout_ms", _ms(bounds.silence_s)),
        # 0 is no limit: a stream may be silent for as long as an answer takes.
        ("grpc.http2.max_pings_without_data", 0),
        # With the default, 5 minutes, Envoys with connection_keepalive lose every connection.
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(bounds.ping_interval_s)),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _described() -> descriptor_pool.DescriptorPool:
    """Return what gRPC reflection shows."""
    # Reflection looks into the default pool, where our messages are not (docs/decisions/0001).
    pool = descriptor_pool.DescriptorPool()
    ours = (base_pb2, processing_mode_pb2, http_status_pb2, external_processor_pb2)
    for module in (*WELL_KNOWN, *ours, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool
