"""The gRPC server, asked by grpcio's own client."""

import asyncio
import contextlib

import grpc
import pytest
from conversation import FILES, counted, read, stages
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.server import SERVICE, Server


def serving(scenario, given=None, max_message_bytes=1 << 20):
    """Run a scenario, a coroutine function of a channel and the server, against a real server."""

    async def main():
        server = Server(given or stages(), "127.0.0.1:0", max_message_bytes=max_message_bytes)
        port = await server.start()
        options = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            try:
                return await asyncio.wait_for(scenario(channel, server), 30)
            finally:
                await server.drain(0)

    return asyncio.run(main())


def process(channel):
    return channel.stream_stream(
        f"/{SERVICE}/Process",
        request_serializer=ProcessingRequest.SerializeToString,
        response_deserializer=ProcessingResponse.FromString,
    )()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_conversation_gets_the_same_replies_over_grpc(path):
    async def scenario(channel, _):
        call, replies = process(channel), []
        for turn in read(path):
            await call.write(turn.message)
            for _ in turn.replies:
                replies.append(await call.read())
        assert await call.read() is grpc.aio.EOF  # the server ends it
        assert await call.code() is grpc.StatusCode.OK
        return replies

    assert serving(scenario) == [reply for turn in read(path) for reply in turn.replies]


def test_a_broken_protocol_ends_the_stream_without_an_error():
    async def scenario(channel, _):
        call = process(channel)
        await call.write(ProcessingRequest())
        assert await call.read() is grpc.aio.EOF
        return await call.code()

    assert serving(scenario) is grpc.StatusCode.OK


def test_a_client_that_leaves_is_counted():
    given = stages()

    async def scenario(channel, _):
        call = process(channel)
        await call.write(ProcessingRequest(request_headers={}))
        await call.read()
        call.cancel()
        while not counted(given.metrics.streams_ended):
            await asyncio.sleep(0.01)

    serving(scenario, given)
    assert counted(given.metrics.streams_ended) == {("left",): 1}


def big(size):
    message = ProcessingRequest()
    message.request_body.body = b"x" * size
    return message


@pytest.mark.parametrize(("size", "code"), [(900_000, "OK"), (1_100_000, "RESOURCE_EXHAUSTED")])
def test_the_longest_message_is_as_configured(size, code):
    async def scenario(channel, _):
        call = process(channel)
        await call.write(big(size))
        await call.done_writing()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()
        return await call.code()

    assert serving(scenario).name == code


def test_health_says_serving_for_the_server_and_the_service():
    async def scenario(channel, _):
        stub = health_pb2_grpc.HealthStub(channel)
        return [
            (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status
            for name in ("", SERVICE)
        ]

    assert serving(scenario) == [health_pb2.HealthCheckResponse.SERVING] * 2


def test_reflection_describes_the_service():
    async def scenario(channel, _):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
        [answer] = [answer async for answer in stub.ServerReflectionInfo(iter([ask]))]
        return answer.file_descriptor_response.file_descriptor_proto

    names = [descriptor_pb2.FileDescriptorProto.FromString(f).name for f in serving(scenario)]
    assert "envoy/service/ext_proc/v3/external_processor.proto" in names


def test_a_drain_lets_running_streams_finish_and_refuses_new_ones():
    async def scenario(channel, server):
        [path] = [file for file in FILES if file.stem == "buffered-short"]
        first, second = read(path)
        call = process(channel)
        await call.write(first.message)
        await call.read()
        drain = asyncio.create_task(server.drain(20))
        await asyncio.sleep(0.1)
        late = process(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await late.write(first.message)
            await late.read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await call.write(second.message)
        assert [await call.read()] == second.replies
        await drain

    serving(scenario)


def test_an_address_that_is_taken_is_an_os_error():
    async def main():
        one = Server(stages(), "127.0.0.1:0", max_message_bytes=1 << 20)
        port = await one.start()
        try:
            with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{port} for gRPC"):
                await Server(stages(), f"127.0.0.1:{port}", max_message_bytes=1 << 20).start()
        finally:
            await one.drain(0)

    asyncio.run(main())


def test_a_unix_socket_serves(tmp_path):
    async def main():
        server = Server(stages(), f"unix:{tmp_path}/s", max_message_bytes=1 << 20)
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
        await server.drain(0)
        return answer.status

    assert asyncio.run(main()) == health_pb2.HealthCheckResponse.SERVING
