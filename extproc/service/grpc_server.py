"""The server on grpc.aio: ext_proc, health and reflection on one address, with a bounded drain."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from extproc.protos import WELL_KNOWN
from extproc.protos.envoy.config.core.v3 import base_pb2
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from extproc.protos.envoy.service.ext_proc.v3 import external_processor_pb2
from extproc.protos.envoy.type.v3 import http_status_pb2
from extproc.service.credentials import Certificates
from extproc.service.lateness import Lateness, SelfCheck
from extproc.service.streams import (
    HEALTH,
    REPORTED,
    SERVICE,
    TOO_MANY,
    Bounds,
    Streams,
    cannot_listen,
)
from extproc.service.unix_socket import PathLock, for_owner_and_group, reserve
from extproc.stream.stages import Stages
from extproc.stream.traced import Trace

BeginTrace = Callable[[Iterable[tuple[str, str | bytes]]], Trace | None]

_SERVING = health_pb2.HealthCheckResponse.SERVING
_FIRST_REPLY_S = 0.1  # to a peer that reads
_log = logging.getLogger(__name__)


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
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, HEALTH), self._server, _described())

    async def start(self) -> int:
        """Listen; return the port (1 for a Unix socket). Raises OSError if that is impossible."""
        if self._address.startswith("unix:"):
            self._path_lock = reserve(Path(self._address.removeprefix("unix:")))
        try:
            with for_owner_and_group():
                port = self._add_port()
        except RuntimeError as error:
            self._unlock_path()
            raise cannot_listen(self._address) from error
        if self._bounds.late_s < math.inf:
            self._self_check.listen(self._server)
        await self._server.start()
        self._self_check.start()
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
        self, messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> None:
        timeout = asyncio.timeout(self._bounds.first_message_s)
        patience = TimedPatience(timeout)
        # peer() is address and port, so one for each connection; all connections over a Unix socket
        # are `unix:`, one peer.
        begin = self._begin_trace
        trace = None if begin is None else begin(context.invocation_metadata() or ())
        stream = self._streams.open(context.peer(), patience, trace)
        if stream is None:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY)
        try:
            async with timeout:
                async for message in messages:
                    patience.is_replying = not patience.has_replied
                    for reply in stream.receive(message):
                        # Not `yield`: a time that ends while gRPC sends would end the call's task
                        # outside of `timeout`, and the call would never get its status.
                        await context.write(reply)
                        patience.is_replying, patience.has_replied = False, True
                    patience.is_replying = False
                    # Envoy would keep the stream open until the answer ends, and open streams count
                    # against its cluster's max_requests (1024 by default).
                    if stream.finished:
                        return
        except TimeoutError:
            _log.debug("ended a stream that was idle for too long or whose place was needed")
            if patience.is_replying:
                # The peer reads nothing. gRPC could not send a status, and would log a traceback.
                raise asyncio.CancelledError from None
        finally:
            stream.close()


class TimedPatience:
    """A places.Patience that leaves a call's first reply the time to be sent.

    gRPC sends the call's first metadata with it; were it cut off, gRPC would send them again with
    the status, fail, and never end the call.
    """

    def __init__(self, timeout: asyncio.Timeout) -> None:
        """Let `timeout`, inside of which the call is served, end it."""
        self._timeout = timeout
        self._ends = False
        self.has_replied = False
        self.is_replying = False
        """Whether the first reply may be on its way."""

    def end(self) -> None:
        """End the call at once, or once its first reply is sent."""
        # One whose time is over is ending by itself, and takes no other time.
        if not self._timeout.expired():
            self.reschedule(0.0)
        self._ends = True

    def reschedule(self, when: float | None) -> None:
        """Set the end; None is never. Without effect after `end`."""
        if self._ends:
            return
        if when is not None and self.is_replying:
            when = max(when, asyncio.get_running_loop().time() + _FIRST_REPLY_S)
        self._timeout.reschedule(when)


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
