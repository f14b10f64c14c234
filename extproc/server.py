"""The gRPC server: ext_proc, health and reflection on one address, with a bounded drain."""

import logging
from collections.abc import AsyncIterator

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from extproc.exchange import Stages
from extproc.protos import WELL_KNOWN
from extproc.protos.envoy.config.core.v3 import base_pb2
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from extproc.protos.envoy.service.ext_proc.v3 import external_processor_pb2
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.protos.envoy.type.v3 import http_status_pb2
from extproc.stream import Stream

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_log = logging.getLogger(__name__)


class Server:
    """Answers Envoy on one address."""

    def __init__(self, stages: Stages, address: str, *, max_message_bytes: int) -> None:
        self._stages = stages
        self._address = address
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(options=_options(max_message_bytes))
        self._server.add_generic_rpc_handlers((self._handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
        reflection.enable_server_reflection(names, self._server, _described())

    async def start(self) -> int:
        """Listen; return the port (1 for a Unix socket). Raises OSError where it cannot."""
        try:
            port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address} for gRPC") from error
        await self._server.start()
        await self._tell(_SERVING)
        return port

    async def drain(self, seconds: float) -> None:
        """Refuse new streams, let running ones finish for `seconds`, then end them."""
        await self._tell(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.stop(seconds)

    async def _tell(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    def _handler(self) -> "grpc.GenericRpcHandler[ProcessingRequest, ProcessingResponse]":
        process = grpc.stream_stream_rpc_method_handler(
            self._process,
            request_deserializer=ProcessingRequest.FromString,
            response_serializer=ProcessingResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": process})

    async def _process(
        self, messages: AsyncIterator[ProcessingRequest], _context: object
    ) -> AsyncIterator[ProcessingResponse]:
        stream = Stream(self._stages)
        try:
            async for message in messages:
                for reply in stream.receive(message):
                    yield reply
                if stream.finished:
                    return
        finally:
            stream.close()
            if stream.error is not None:
                _log.error("stream failed, its request passes on", exc_info=stream.error)


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.so_reuseport", 0),
        # The defaults, 1000 and 3000, refuse a burst of streams that Envoy may well open.
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 200_000),
    ]


def _described() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    ours = (base_pb2, processing_mode_pb2, http_status_pb2, external_processor_pb2)
    for module in (*WELL_KNOWN, *ours, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool
