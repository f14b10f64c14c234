"""An ext_proc client of envoy-data-plane's messages: none of the service's stubs are on the wire.

The files of conversations are parsed with our stubs, and converted by the names of their fields.
"""

import asyncio

import betterproto2
import grpc.aio
from envoy_data_plane.envoy.config.core.v3 import HeaderMap, HeaderValue
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from google.protobuf import json_format

from extproc.protos import POOL
from extproc.service.streams import Bounds
from tests.support.conversation import read

PATH = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
CHAT = {":method": "POST", ":path": "/v1/chat/completions"}

Mode = ProcessingModeBodySendMode


def client_conversation(path):
    """Return a conversation's (request, replies) pairs as the client's messages."""
    return [
        (
            _converted(ProcessingRequest, turn.message),
            [_converted(ProcessingResponse, reply) for reply in turn.replies],
        )
        for turn in read(path)
    ]


def _converted(kind, message):
    return kind.from_dict(json_format.MessageToDict(message, descriptor_pool=POOL))


def headers(side, fields, *, end=False, **message):
    """Return the message of request or response headers."""
    pairs = [HeaderValue(key=key, raw_value=value.encode()) for key, value in fields.items()]
    content = HttpHeaders(headers=HeaderMap(headers=pairs), end_of_stream=end)
    return ProcessingRequest(**{f"{side}_headers": content}, **message)


def body(side, data=b"", *, end=False, **message):
    """Return the message of one piece of a body."""
    return ProcessingRequest(**{f"{side}_body": HttpBody(body=data, end_of_stream=end)}, **message)


def trailers(side, **message):
    """Return the message of trailers."""
    return ProcessingRequest(**{f"{side}_trailers": HttpTrailers()}, **message)


def modes(request=Mode.NONE, response=Mode.NONE, **fields):
    """Return the protocol_config that Envoy sends with the first message."""
    return ProtocolConfiguration(request_body_mode=request, response_body_mode=response, **fields)


class Call:
    """One open stream."""

    def __init__(self, call):
        self._call = call

    async def send(self, message):
        await self._call.write(message)

    async def receive(self):
        """Return the next reply, or None after the last; raises AioRpcError."""
        reply = await self._call.read()
        return None if reply is grpc.aio.EOF else reply

    async def status(self):
        return await self._call.code()

    async def exchange(self, *messages):
        """Send messages, each of which gets one reply; return the replies."""
        replies = []
        for message in messages:
            await self.send(message)
            replies.append(await self.receive())
        return replies


class Client:
    """A connection to a server."""

    def __init__(self, channel):
        self._channel = channel

    def process(self, path=PATH, serializer=bytes):
        """Open a stream."""
        method = self._channel.stream_stream(
            path, request_serializer=serializer, response_deserializer=ProcessingResponse.parse
        )
        return Call(method())


def with_client(serve_on, scenario, stages):
    """Run a coroutine function of a client against a real server of a transport."""

    async def main():
        server = serve_on(stages, "127.0.0.1:0", Bounds(message_bytes=1 << 20))
        port = await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                return await asyncio.wait_for(scenario(Client(channel)), 30)
            finally:
                await server.drain(0)

    return asyncio.run(main())


def set_headers(reply):
    """Return the headers that a reply sets."""
    part = reply.request_body or reply.request_headers
    mutation = part.response.header_mutation
    options = mutation.set_headers if mutation else []
    return {option.header.key: option.header.raw_value.decode() for option in options}


def with_unknown_fields(message):
    """Return the message with fields that no protocol has: a number, and some text."""
    number = betterproto2.encode_varint(1000 << 3) + betterproto2.encode_varint(7)
    text = betterproto2.encode_varint(1001 << 3 | 2) + b"\x03abc"
    return type(message).parse(bytes(message) + number + text)
