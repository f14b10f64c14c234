"""The gRPC server: ext_proc, health and reflection on one address, with a bounded drain.

Invariant: all that one peer can take of the server is bounded, except the time of an answer.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
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
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from extproc.protos.envoy.type.v3 import http_status_pb2
from extproc.service.bounded_log import BoundedLog
from extproc.service.certificates import Certificates
from extproc.service.lateness import Lateness, SelfCheck
from extproc.service.places import Places
from extproc.service.unix_socket import PathLock, for_owner_and_group, reserve
from extproc.stream.exchange import Stages
from extproc.stream.session import ProtocolError
from extproc.stream.stream import Stream

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits on what peers can take of the server.

    streams: open at once, over all connections, shared as `places` says; Envoy passes on the
        requests of others unread.
    connection_streams: open at once on one connection; Envoy opens another connection for more.
    handshake_s: the time for a new connection to start HTTP/2.
    first_message_s: the time for a stream to send its first message, which Envoy sends at once.
    body_s: the time from the start of a stream to the end of the request's body; later the request
        passes on unread. The answer may take any time.
    late_s: how late a stream may be answered; above it, requests are decided by their size alone.
    silence_s: the time without data before a keepalive ping, and again before a connection without
        a reply is closed. A stream may be idle for as long as an answer takes, and a machine that
        crashes closes nothing.
    ping_interval_s: the shortest interval of pings from a peer.
    """

    message_bytes: int
    streams: int = 12_000
    connection_streams: int = 1000
    connections: int = 4096
    handshake_s: float = 10.0
    first_message_s: float = 10.0
    body_s: float = 300.0
    late_s: float = math.inf
    silence_s: float = 30.0
    ping_interval_s: float = 1.0


class Server:
    """Serves Envoy on one address, over TLS if certificates are given."""

    def __init__(
        self, stages: Stages, address: str, bounds: Bounds, certificates: Certificates | None = None
    ) -> None:
        lateness = Lateness(bounds.late_s, time.monotonic)
        self._self_check = SelfCheck(lateness)
        self._stages = replace(stages, is_late=lateness.is_over)
        self._address = address
        self._bounds = bounds
        self._certificates = certificates
        self._places = Places(bounds.streams)
        self._path_lock: PathLock | None = None
        self._faults = BoundedLog(_log, logging.ERROR, time.monotonic)
        self._violations = BoundedLog(_log, logging.WARNING, time.monotonic)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(options=_options(bounds))
        self._server.add_generic_rpc_handlers((self._handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection(names, self._server, _described())

    async def start(self) -> int:
        """Listen; return the port (1 for a Unix socket). Raises OSError if that is impossible."""
        if self._address.startswith("unix:"):
            self._path_lock = reserve(Path(self._address.removeprefix("unix:")))
        try:
            with for_owner_and_group():
                port = self._add_port()
        except RuntimeError as error:
            self._unlock_path()
            fix = "stop what listens there, or choose another address of this machine"
            raise OSError(f"cannot listen on {self._address} for gRPC; {fix}") from error
        if self._bounds.late_s < math.inf:
            self._self_check.listen(self._server)
        await self._server.start()
        self._self_check.start()
        await self._report(_SERVING)
        return port

    async def announce_end(self) -> None:
        """Report NOT_SERVING; keep serving."""
        await self._report(health_pb2.HealthCheckResponse.NOT_SERVING)

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
        for service in ("", SERVICE):
            await self._health.set(service, status)

    def _handler(self) -> "grpc.GenericRpcHandler[bytes, ProcessingResponse]":
        process = grpc.stream_stream_rpc_method_handler(
            self._process,
            # Not decoded by gRPC, which would end the call with an error that nobody counts.
            request_deserializer=None,
            response_serializer=ProcessingResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": process})

    async def _process(
        self,
        messages: AsyncIterator[bytes],
        context: "grpc.aio.ServicerContext[bytes, ProcessingResponse]",
    ) -> AsyncIterator[ProcessingResponse]:
        # peer() is address and port, so one for each connection; all connections over a Unix socket
        # are `unix:`, one peer.
        peer, patience = context.peer(), asyncio.timeout(self._bounds.first_message_s)
        if not self._places.take(peer, patience):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams are open")
        stream = Stream(self._stages)
        body_until = asyncio.get_running_loop().time() + self._bounds.body_s
        try:
            async with patience:
                async for message in messages:
                    for reply in stream.receive_encoded(message):
                        yield reply
                    # Envoy would keep the stream open until the answer ends, and open streams count
                    # against its cluster's max_requests (1024 by default).
                    if stream.finished:
                        return
                    patience.reschedule(body_until if stream.awaits_request else None)
        except TimeoutError:
            _log.debug("ended a stream that was idle for too long or whose place was needed")
        finally:
            self._places.leave(peer, patience)
            stream.close()
            self._log_fault(peer, stream.error)

    def _log_fault(self, peer: str, error: Exception | None) -> None:
        match error:
            case None:
                return
            case ProtocolError():
                self._violations.write("%s broke the ext_proc protocol: %s", peer, error)
            case _:
                message = "stream failed; its request passes on unchanged"
                self._faults.write(message, error=error)


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
    # Reflection looks into the default pool, where our messages are not (docs/decisions/0001).
    pool = descriptor_pool.DescriptorPool()
    ours = (base_pb2, processing_mode_pb2, http_status_pb2, external_processor_pb2)
    for module in (*WELL_KNOWN, *ours, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool
