"""The server on each transport, asked by grpcio's own client and by raw frames."""

import asyncio
import contextlib
import random
import re
import socket
from dataclasses import replace
from functools import partial

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.service.bounded_log import MOST_LINES
from extproc.service.grpc_server import GrpcServer
from extproc.service.streams import SERVICE, Bounds
from extproc.stream.exchange import Exchange
from tests.support.conversation import FILES, counted, read, stages
from tests.support.http2_peer import (
    ACK,
    PING,
    connected,
    frame,
    frames,
    greet,
    request_headers,
)

# Tests run beside each other: a client whose process has to wait for a core is not late.
BOUNDS = Bounds(message_bytes=1 << 20, first_message_s=60)


@pytest.fixture
def serving(serve_on):
    return partial(_serving, serve_on)


@pytest.fixture
def beside(serve_on):
    return partial(_beside, serve_on)


def _serving(serve_on, scenario, given=None, bounds=BOUNDS):
    """Run a scenario, a coroutine function of a channel and the server, against a real server."""

    async def main():
        server = serve_on(given or stages(), "127.0.0.1:0", bounds)
        port = await server.start()
        options = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            try:
                return await asyncio.wait_for(scenario(channel, server), 100)
            finally:
                await server.drain(0)

    return asyncio.run(main())


def process(channel):
    return channel.stream_stream(
        f"/{SERVICE}/Process",
        request_serializer=ProcessingRequest.SerializeToString,
        response_deserializer=ProcessingResponse.FromString,
    )()


def read_conversation(name):
    [path] = [file for file in FILES if file.stem == name]
    return read(path)


async def converse(channel, name):
    call = process(channel)
    for turn in read_conversation(name):
        await call.write(turn.message)
        for reply in turn.replies:
            assert await call.read() == reply
    assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_conversation_gets_the_same_replies_over_grpc(serving, path):
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


def test_a_broken_protocol_ends_the_stream_without_an_error(serving):
    async def scenario(channel, _):
        call = process(channel)
        await call.write(ProcessingRequest())
        assert await call.read() is grpc.aio.EOF
        return await call.code()

    assert serving(scenario) is grpc.StatusCode.OK


def test_bytes_that_are_no_message_are_a_broken_protocol(serving, caplog):
    given = stages()

    async def scenario(channel, _):
        call = channel.stream_stream(f"/{SERVICE}/Process")()
        await call.write(b"\xff\xff")
        assert await call.read() is grpc.aio.EOF
        return await call.code()

    assert serving(scenario, given) is grpc.StatusCode.OK
    assert counted(given.metrics.streams_ended) == {("protocol",): 1}
    [line] = caplog.messages
    assert "broke the ext_proc protocol: a message that is not a ProcessingRequest" in line


def test_violations_are_logged_at_a_bounded_rate(serving, caplog):
    async def scenario(channel, _):
        for _ in range(MOST_LINES + 5):
            call = process(channel)
            await call.write(ProcessingRequest())
            assert await call.read() is grpc.aio.EOF

    serving(scenario)
    assert len(caplog.messages) == MOST_LINES


@pytest.mark.interpreted
def test_a_fault_of_ours_is_logged_with_its_traceback(serving, caplog, monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Exchange, "begin", fail)
    serving(lambda channel, _: unfinished(channel))
    assert "stream failed; its request passes on unchanged" in caplog.text
    assert "RuntimeError: a bug" in caplog.text


def test_a_client_that_leaves_is_counted(serving):
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
def test_the_longest_message_is_as_configured(serving, size, code):
    async def scenario(channel, _):
        call = process(channel)
        await call.write(big(size))
        await call.done_writing()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.read()
        return await call.code()

    assert serving(scenario).name == code


def test_health_says_serving_for_the_server_and_the_service(serving):
    async def scenario(channel, _):
        stub = health_pb2_grpc.HealthStub(channel)
        return [
            (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status
            for name in ("", SERVICE)
        ]

    assert serving(scenario) == [health_pb2.HealthCheckResponse.SERVING] * 2


@pytest.mark.parametrize("serve_on", [GrpcServer])
def test_reflection_describes_the_service(serving):
    async def scenario(channel, _):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
        [answer] = [answer async for answer in stub.ServerReflectionInfo(iter([ask]))]
        return answer.file_descriptor_response.file_descriptor_proto

    names = [descriptor_pb2.FileDescriptorProto.FromString(f).name for f in serving(scenario)]
    assert "envoy/service/ext_proc/v3/external_processor.proto" in names


def test_a_drain_lets_running_streams_finish_and_refuses_new_ones(serving):
    async def scenario(channel, server):
        first, second = read_conversation("buffered-short")
        call = process(channel)
        await call.write(first.message)
        await call.read()
        drain = asyncio.create_task(server.drain(50))
        # A stream that the client opens before it has read the notice would be served.
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        late = process(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await late.write(first.message)
            await late.read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        # At the end of a connection grpcio drops what it was not asked for before.
        reading = asyncio.create_task(call.read())
        await call.write(second.message)
        assert [await reading] == second.replies
        await drain

    serving(scenario)


def refused_address(server):
    async def main():
        with pytest.raises(OSError, match="cannot listen on ") as caught:
            await server().start()
        return str(caught.value)

    return asyncio.run(main())


def test_an_address_that_is_taken_is_an_os_error(serve_on):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        text = refused_address(lambda: serve_on(stages(), address, BOUNDS))
    reason = "Address already in use; stop what listens there, or change listen.grpc"
    assert text == f"cannot listen on {address} for gRPC: {reason}"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.1:1", "Cannot assign requested address; change listen.grpc to an address of"),
        ("no.such.host.invalid:1", ".+; change listen.grpc to a host that this machine can reso"),
    ],
)
def test_an_address_of_another_machine_or_of_none_is_an_os_error(serve_on, address, reason):
    text = refused_address(lambda: serve_on(stages(), address, BOUNDS))
    assert re.match(f"cannot listen on {address} for gRPC: {reason}", text)


def test_a_stream_that_says_nothing_is_ended(serving):
    async def scenario(channel, _):
        call = process(channel)
        assert await call.read() is grpc.aio.EOF
        return await call.code()

    assert serving(scenario, bounds=replace(BOUNDS, first_message_s=0.1)) is grpc.StatusCode.OK


def test_a_stream_that_has_spoken_may_be_silent(serving):
    async def scenario(channel, _):
        first, second = read_conversation("buffered-short")
        call, mute = process(channel), process(channel)
        await call.write(first.message)
        await call.read()
        assert await mute.read() is grpc.aio.EOF  # it was waited for long enough
        await call.write(second.message)
        assert [await call.read()] == second.replies

    serving(scenario, bounds=replace(BOUNDS, first_message_s=0.1))


def test_a_stream_whose_body_does_not_come_is_ended(serving):
    async def scenario(channel, _):
        [first, _] = read_conversation("buffered-short")
        call = process(channel)
        await call.write(first.message)
        await call.read()
        assert await call.read() is grpc.aio.EOF
        return await call.code()

    assert serving(scenario, bounds=replace(BOUNDS, body_s=0.1)) is grpc.StatusCode.OK


def test_a_stream_whose_time_is_over_before_its_first_reply_is_ended(serving):
    async def scenario(channel, _):
        [first, _] = read_conversation("buffered-short")
        call = process(channel)
        await call.write(first.message)
        while await call.read() is not grpc.aio.EOF:
            pass
        return await call.code()

    assert serving(scenario, bounds=replace(BOUNDS, body_s=0.0)) is grpc.StatusCode.OK


def test_an_answer_may_take_any_time(serving):
    async def scenario(channel, _):
        call = process(channel)
        await call.write(ProcessingRequest(request_headers={}, observability_mode=True))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call.read(), 0.3)

    serving(scenario, bounds=replace(BOUNDS, body_s=0.1))


@pytest.mark.parametrize("hold", ["unfinished", "unanswered"])
def test_a_connection_that_holds_all_places_makes_room_for_another(serve_on, hold):
    opened = {"unfinished": unfinished, "unanswered": unanswered}[hold]

    async def main():
        server = serve_on(stages(), "127.0.0.1:0", replace(BOUNDS, streams=4))
        port = await server.start()
        try:
            async with connection(port) as greedy, connection(port) as other:
                held = [await opened(greedy) for _ in range(4)]
                await asyncio.wait_for(converse(other, "buffered-short"), 60)
                assert await asyncio.wait_for(held[0].read(), 60) is grpc.aio.EOF
                assert await held[0].code() is grpc.StatusCode.OK
                return [call.done() for call in held]
        finally:
            await server.drain(0)

    assert asyncio.run(main()) == [True, False, False, False]


def connection(port):
    """Open a channel over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)


async def unfinished(channel):
    """Open a stream whose body does not come."""
    call = process(channel)
    await call.write(read_conversation("buffered-short")[0].message)
    await call.read()
    return call


async def unanswered(channel):
    """Open a stream that gets no replies."""
    call = process(channel)
    await call.write(ProcessingRequest(request_headers={}, observability_mode=True))
    await asyncio.sleep(0.2)  # so that it is opened before the next one
    return call


def test_a_server_that_is_late_decides_by_the_size(serving):
    given = stages()

    async def scenario(channel, _):
        while counted(given.metrics.decisions).get(("short", "other", "busy", "prior")) is None:
            call = process(channel)
            await call.write(sized("100"))
            await call.read()
            call.cancel()

    serving(scenario, given, replace(BOUNDS, late_s=1e-9))


def sized(length):
    message = ProcessingRequest(request_headers={})
    message.protocol_config.request_body_mode = ProcessingMode.BUFFERED
    named = {":method": "POST", ":path": "/v1/completions", "content-length": length}
    for key, value in named.items():
        message.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    return message


@pytest.mark.parametrize("serve_on", [GrpcServer])
def test_the_measuring_leaves_nothing_behind(serving, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def scenario(*_):
        [folder] = tmp_path.iterdir()
        return folder.stat().st_mode & 0o777

    assert serving(scenario, bounds=replace(BOUNDS, late_s=1.0)) == 0o700
    assert list(tmp_path.iterdir()) == []


def test_a_stream_too_many_is_refused_and_health_is_answered(serving):
    async def scenario(channel, _):
        [first, _] = read_conversation("buffered-short")
        one = process(channel)
        await one.write(first.message)
        await one.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await process(channel).read()
        assert refused.value.details() == "too many streams are open"
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest())).status

    bounds = replace(BOUNDS, streams=1)
    assert serving(scenario, bounds=bounds) == health_pb2.HealthCheckResponse.SERVING


def test_a_stream_that_ends_makes_room_for_another(serving):
    async def scenario(channel, _):
        for _ in range(3):
            await converse(channel, "buffered-short")

    serving(scenario, bounds=replace(BOUNDS, streams=1))


def test_a_connection_has_no_more_streams_than_it_may(serving):
    async def scenario(channel, _):
        first, second = read_conversation("buffered-short")
        one = process(channel)
        await one.write(first.message)
        await one.read()
        two = asyncio.create_task(converse(channel, "buffered-short"))
        done, _ = await asyncio.wait([two], timeout=0.1)
        assert not done
        await one.write(second.message)
        await one.read()
        await two

    serving(scenario, bounds=replace(BOUNDS, connection_streams=1))


def test_metadata_larger_than_16_kib_are_refused(serving):
    async def scenario(channel, _):
        call = channel.unary_unary("/x/Y")(b"", metadata=[("x", "y" * 17_000)])
        return await call.code()

    assert serving(scenario) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_two_thousand_streams_at_once_are_served(serving):
    async def scenario(channel, _):
        await asyncio.gather(*(converse(channel, "buffered-short") for _ in range(2000)))

    bounds = replace(BOUNDS, connection_streams=2000)
    serving(scenario, bounds=bounds)


def test_clients_that_leave_at_any_moment_leave_nothing_behind(serving):
    given, draw = stages(), random.Random(1)

    async def scenario(channel, _):
        async def visit():
            task = asyncio.create_task(converse(channel, "buffered-short"))
            await asyncio.sleep(draw.random() / 20)
            task.cancel()
            # What the client's library makes of it is not what is tested.
            await asyncio.gather(task, return_exceptions=True)

        await asyncio.gather(*(visit() for _ in range(500)))
        await converse(channel, "buffered-short")

    serving(scenario, given)
    ended = counted(given.metrics.streams_ended)
    assert set(ended) <= {("finished",), ("left",)}
    assert given.metrics.streams.now == 0


def test_large_messages_of_many_streams_do_not_mix(serving):
    async def scenario(channel, _):
        async def send(number):
            call = process(channel)
            first, _ = read_conversation("buffered-short")
            await call.write(first.message)
            await call.read()
            body = ProcessingRequest()
            text = b"x" * (20_000 * number)
            prompt = b'{"max_tokens":1,"messages":[{"role":"user","content":"%s"}]}'
            body.request_body.body = prompt % text
            body.request_body.end_of_stream = True
            await call.write(body)
            reply = await call.read()
            mutation = reply.request_body.response.header_mutation
            return {h.header.key: h.header.raw_value for h in mutation.set_headers}["x-llm-pool"]

        return await asyncio.gather(*(send(number) for number in range(1, 33)))

    # 32,000 bytes are 8,000 tokens.
    assert serving(scenario) == [b"short"] + [b"long"] * 31


def test_a_long_answer_in_small_pieces_passes(serving):
    first = ProcessingRequest(response_headers={})
    first.protocol_config.response_body_mode = ProcessingMode.STREAMED
    piece = ProcessingRequest(response_body={"body": bytes(16_000)})

    async def scenario(channel, _):
        call = process(channel)
        await call.write(first)
        await call.read()
        for _ in range(600):  # 9.6 MB, more than any window
            await call.write(piece)
            assert (await call.read()).HasField("response_body")

    serving(scenario)


def test_a_service_of_another_name_is_unknown(serving):
    async def scenario(channel, _):
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
        return refused.value.code()

    assert serving(scenario) is grpc.StatusCode.NOT_FOUND


def test_an_end_that_is_announced_shows_in_the_health(serving):
    async def scenario(channel, server):
        await server.announce_end()
        await converse(channel, "buffered-short")
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest())).status

    assert serving(scenario) == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_drain_ends_what_does_not_end(serving):
    async def scenario(channel, server):
        call = await unfinished(channel)
        await server.drain(0.1)
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()

    given = stages()
    serving(scenario, given)
    assert counted(given.metrics.streams_ended) == {("left_chunked",): 1}


def test_a_second_drain_shortens_the_first(serving):
    async def scenario(channel, server):
        call = await unfinished(channel)
        first = asyncio.create_task(server.drain(60))
        await asyncio.sleep(0.1)
        await server.drain(0)
        await asyncio.wait_for(first, 60)
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()

    serving(scenario)


def test_a_server_that_settles_serves(serving):
    async def scenario(channel, server):
        due = await unfinished(channel)
        settling = asyncio.create_task(server.settle(0, 60))
        await asyncio.sleep(0.1)
        await converse(channel, "buffered-short")
        assert not settling.done()
        due.cancel()
        await asyncio.wait_for(settling, 60)

    serving(scenario)


def test_settling_is_bounded(serving):
    async def scenario(channel, server):
        await unfinished(channel)
        await asyncio.wait_for(server.settle(0.1, 0.1), 60)

    serving(scenario)


def test_answers_are_waited_for_in_their_time_alone(serving):
    async def scenario(channel, server):
        call = process(channel)
        await call.write(ProcessingRequest(response_headers={}))
        await call.read()
        settling = asyncio.create_task(server.settle(60, 60))
        await asyncio.sleep(0.1)
        assert not settling.done()
        settling.cancel()
        await asyncio.wait_for(server.settle(0.1, 600), 60)

    serving(scenario)


def test_a_method_that_is_none_is_not_implemented(serving):
    async def scenario(channel, _):
        return await channel.unary_unary(f"/{SERVICE}/None")(b"").code()

    assert serving(scenario) is grpc.StatusCode.UNIMPLEMENTED


def _beside(serve_on, scenario, bounds=BOUNDS):
    """Run a plain function of a port in a thread beside a server."""

    async def main():
        given = stages()
        server = serve_on(given, "127.0.0.1:0", bounds)
        port = await server.start()
        try:
            async with asyncio.timeout(30):
                return await asyncio.to_thread(scenario, port), given
        finally:
            await server.drain(0)

    return asyncio.run(main())


def test_a_connection_that_says_nothing_is_closed(beside):
    def scenario(port):
        with connected(port) as peer:
            list(frames(peer))

    beside(scenario, replace(BOUNDS, handshake_s=0.2))


def test_a_peer_that_gives_no_sign_of_life_is_forgotten(beside):
    def scenario(port):
        with connected(port) as peer:
            greet(peer)
            peer.sendall(request_headers())
            return [kind for kind, _, _ in frames(peer)]

    kinds, given = beside(scenario, replace(BOUNDS, silence_s=0.2))
    assert PING in kinds
    assert counted(given.metrics.streams_ended) == {("left",): 1}


def test_a_flood_of_pings_ends_the_connection(beside):
    def scenario(port):
        with connected(port) as peer, contextlib.suppress(ConnectionError):
            greet(peer)
            peer.sendall(frame(PING, bytes(8)) * 10_000)
            return list(frames(peer))  # up to the end

    beside(scenario)


def test_pings_at_the_permitted_pace_are_answered(beside):
    def scenario(port):
        with connected(port) as peer:
            greet(peer)
            answers = frames(peer)
            for _ in range(10):
                peer.sendall(frame(PING, bytes(8)))
                assert any(kind == PING and flags == ACK for kind, flags, _ in answers)

    beside(scenario, replace(BOUNDS, ping_interval_s=0))


def test_a_connection_too_many_is_closed(beside):
    def scenario(port):
        with connected(port) as one, connected(port) as two:
            greet(one)
            next(frames(one))
            two.settimeout(5)
            assert list(frames(two)) == []

    beside(scenario, replace(BOUNDS, connections=1))
