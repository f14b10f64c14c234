"""An endpoint picker: an ext_proc service that names a server of its pool for each request.

It follows the endpoint picker protocol of the Gateway API Inference Extension: it reads the whole
body in the mode FULL_DUPLEX_STREAMED, answers the headers, and returns the body piece by piece.
"""

import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc.aio

from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.service.streams import SERVICE

DESTINATION = "x-gateway-destination-endpoint"
PREFILL = "x-prefiller-host-port"
_PIECE = 62_000  # what pickers return at once


@dataclass
class Picker:
    """Takes the pool's servers in turn; records the headers and the bodies that it was shown."""

    servers: list[str]
    picked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: int = 0

    def __post_init__(self):
        self._turns = itertools.cycle(self.servers)

    async def process(self, messages, _context):
        body = b""
        async for message in messages:
            match message.WhichOneof("request"):
                case "request_headers":
                    fields = message.request_headers.headers.headers
                    self.headers.append({f.key: f.raw_value.decode() for f in fields})
                    if message.request_headers.end_of_stream:
                        yield self._pick()
                case "request_body":
                    body += message.request_body.body
                    if message.request_body.end_of_stream:
                        self.bodies.append(body)
                        yield self._pick()
                        for piece in _pieces(body):
                            yield ProcessingResponse(request_body=piece)
                case "response_headers":
                    yield ProcessingResponse(response_headers={})
                case "response_body":
                    part = message.response_body
                    self.answers += part.end_of_stream
                    yield ProcessingResponse(response_body=_piece(part.body, part.end_of_stream))
                case "request_trailers":
                    yield ProcessingResponse(request_trailers={})
                case "response_trailers":
                    yield ProcessingResponse(response_trailers={})

    def _pick(self):
        server = next(self._turns)
        self.picked.append(server)
        # A prefill server, for a decode server that reads this header.
        values = {DESTINATION: server, PREFILL: "10.0.0.9:8100"}
        mutation = {
            "set_headers": [
                {"header": {"key": key, "raw_value": value.encode()}}
                for key, value in values.items()
            ]
        }
        reply = {"response": {"header_mutation": mutation, "clear_route_cache": True}}
        answer = ProcessingResponse(request_headers=reply)
        answer.dynamic_metadata.update({"envoy.lb": {DESTINATION: server}})
        return answer


def _pieces(body):
    starts = range(0, len(body), _PIECE)
    return [_piece(body[at : at + _PIECE], at + _PIECE >= len(body)) for at in starts]


def _piece(body, last):
    streamed = {"body": body, "end_of_stream": last}
    return {"response": {"body_mutation": {"streamed_response": streamed}}}


@dataclass
class PickerServer:
    """A picker that is served."""

    port: int
    server: grpc.aio.Server

    async def stop(self):
        await self.server.stop(0)


@asynccontextmanager
async def picking(picker):
    """Serve a picker; yield its server."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 1 << 26)])
    method = grpc.stream_stream_rpc_method_handler(
        picker.process,
        request_deserializer=ProcessingRequest.FromString,
        response_serializer=ProcessingResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Process": method})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    found = PickerServer(port, server)
    try:
        yield found
    finally:
        await found.stop()
