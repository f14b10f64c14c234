"""The server answers a client that shares none of its code as the ext_proc protocol requires."""

import asyncio
from functools import partial

import betterproto2
import pytest
from envoy_data_plane.envoy.config.core.v3 import Metadata
from envoy_data_plane.envoy.service.ext_proc.v3 import ProcessingRequest, ProcessingResponse
from envoy_data_plane.google.protobuf import Any, UInt64Value
from grpc import StatusCode

from tests.support.conversation import FILES, counted, stages
from tests.support.ext_proc_client import (
    CHAT,
    Mode,
    body,
    client_conversation,
    headers,
    modes,
    set_headers,
    trailers,
    with_unknown_fields,
)
from tests.support.ext_proc_client import with_client as run_with_client
from tests.support.transports import TRANSPORTS

PROMPT = (
    b'{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"Where do owls sleep?"}]}'
)
ANSWER = b'{"usage":{"prompt_tokens":5,"completion_tokens":7}}'
OK = {":status": "200", "content-type": "application/json"}
BUFFERED = {"protocol_config": modes(Mode.BUFFERED)}
REQUEST = (headers("request", CHAT, **BUFFERED), body("request", PROMPT, end=True))


@pytest.fixture(params=TRANSPORTS)
def with_client(request):
    return partial(run_with_client, TRANSPORTS[request.param])


async def talk(client, conversation):
    """Play a conversation; return all replies, and check that the server ends the stream."""
    replies = []
    call = client.process()
    for message, expected in conversation:
        await call.send(message)
        replies += [await call.receive() for _ in expected]
    assert await call.receive() is None
    assert await call.status() is StatusCode.OK
    return replies


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_conversation_gets_the_replies_of_the_core(with_client, path):
    conversation = client_conversation(path)
    replies = with_client(lambda client: talk(client, conversation), stages())
    assert replies == [reply for _, expected in conversation for reply in expected]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_fields_that_the_service_does_not_know_change_nothing(with_client, path):
    conversation = client_conversation(path)
    unknown = [(with_unknown_fields(message), expected) for message, expected in conversation]
    replies = with_client(lambda client: talk(client, unknown), stages())
    assert replies == [reply for _, expected in conversation for reply in expected]


def test_a_buffered_body_is_routed(with_client):
    async def scenario(client):
        call = client.process()
        return await call.exchange(*REQUEST)

    held, routed = with_client(scenario, stages())
    assert held == ProcessingResponse.from_dict({"request_headers": {"response": {}}})
    assert set_headers(routed)["x-llm-pool"] == "short"
    assert routed.request_body.response.clear_route_cache


def test_a_streamed_body_passes_as_it_comes(with_client):
    async def scenario(client):
        config = modes(Mode.STREAMED, Mode.STREAMED)
        call = client.process()
        return await call.exchange(
            headers("request", CHAT, protocol_config=config),
            body("request", PROMPT[:20]),
            body("request", PROMPT[20:], end=True),
            headers("response", OK),
            body("response", ANSWER[:9]),
            body("response", ANSWER[9:], end=True),
        )

    replies = with_client(scenario, stages())
    parts = [betterproto2.which_one_of(reply, "response") for reply in replies]
    request = ["request_headers", "request_body", "request_body"]
    response = ["response_headers", "response_body", "response_body"]
    assert [kind for kind, _ in parts] == request + response
    assert [part.response.body_mutation for _, part in parts] == [None] * 6


def test_a_body_sent_ahead_is_decided_with_the_headers(with_client):
    config = modes(Mode.STREAMED, send_body_without_waiting_for_header_response=True)

    async def scenario(client):
        call = client.process()
        await call.send(headers("request", CHAT, protocol_config=config))
        await call.send(body("request", PROMPT[:20]))
        await call.send(body("request", PROMPT[20:], end=True))
        return [await call.receive() for _ in range(3)]

    decided, *_ = with_client(scenario, stages())
    assert set_headers(decided)["x-llm-pool"] == "short"


def test_a_full_duplex_body_comes_back_in_pieces_that_envoy_can_take(with_client):
    config = modes(Mode.FULL_DUPLEX_STREAMED, Mode.FULL_DUPLEX_STREAMED)
    padded = PROMPT[:-1] + b" " * 200_000 + b"}"

    async def scenario(client):
        call = client.process()
        await call.send(headers("request", CHAT, protocol_config=config))
        for start in range(0, len(padded), 50_000):
            await call.send(body("request", padded[start : start + 50_000]))
        await call.send(body("request", end=True))
        return await pieces(call)

    decided, sent = with_client(scenario, stages())
    assert set_headers(decided)["x-llm-pool"] == "short"
    assert b"".join(piece.body for piece in sent) == padded
    assert max(len(piece.body) for piece in sent) <= 65_536


async def pieces(call):
    """Read the reply to the headers, and a streamed body up to its end."""
    first, sent = await call.receive(), []
    while not (sent and sent[-1].end_of_stream):
        reply = await call.receive()
        sent.append(reply.request_body.response.body_mutation.streamed_response)
    return first, sent


def test_trailers_are_answered(with_client):
    async def scenario(client):
        config = modes(Mode.BUFFERED, Mode.STREAMED)
        call = client.process()
        replies = await call.exchange(
            headers("request", CHAT, protocol_config=config),
            body("request", PROMPT),
            trailers("request"),
            headers("response", OK),
            body("response", ANSWER),
            trailers("response"),
        )
        return [*replies, await call.receive()]

    *_, request, _, _, response, end = with_client(scenario, stages())
    assert request == ProcessingResponse.from_dict({"request_trailers": {}})
    assert response == ProcessingResponse.from_dict({"response_trailers": {}})
    assert end is None


def usage(prompt_tokens, completion_tokens):
    """Return envoy.data.ai.v3.TokenUsage, which envoy-data-plane does not have yet."""
    fields = ((3, prompt_tokens), (4, completion_tokens))
    values = [(number, bytes(UInt64Value(value=value))) for number, value in fields]
    data = b"".join(bytes([number << 3 | 2, len(value)]) + value for number, value in values)
    return Any(type_url="type.googleapis.com/envoy.data.ai.v3.TokenUsage", value=data)


def test_an_observer_gets_no_reply_and_learns_from_the_usage_in_the_trailers(with_client):
    given = stages()

    async def scenario(client):
        call = client.process()
        _, routed = await call.exchange(*REQUEST)
        note = routed.dynamic_metadata.fields["llm"].struct_value
        told = {"filter_metadata": {"llm": note}}
        spent = {"typed_filter_metadata": {"envoy.ai.token_usage": usage(5, 7)}}
        observing = {"observability_mode": True, "protocol_config": modes()}
        call = client.process()
        await call.send(headers("request", CHAT, metadata_context=Metadata(**told), **observing))
        await call.send(headers("response", OK, observability_mode=True))
        await call.send(
            trailers("response", metadata_context=Metadata(**spent), observability_mode=True)
        )
        return await call.receive()

    assert with_client(scenario, given) is None
    [learnt] = given.learner.learnt().categories.values()
    assert learnt["samples"] == 1


VIOLATIONS = {
    "a message of nothing": [ProcessingRequest()],
    "headers twice": [REQUEST[0], REQUEST[0]],
    "a body after the end": [
        headers("request", CHAT, protocol_config=modes(Mode.STREAMED, Mode.STREAMED)),
        body("request", b"{}", end=True),
        body("request", b"{}"),
    ],
    "a second buffered body": [
        headers("request", CHAT, protocol_config=modes(Mode.BUFFERED, Mode.STREAMED)),
        body("request", b"{}"),
        body("request", b"{}"),
    ],
    "a body that was not announced": [
        headers("request", CHAT, protocol_config=modes()),
        body("request", b"{}"),
    ],
    "observability that changes": [REQUEST[0], body("request", observability_mode=True)],
    "gRPC bodies": [headers("request", CHAT, protocol_config=modes(Mode.GRPC))],
    "request headers after those of the response": [headers("response", OK), REQUEST[0]],
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_of_the_protocol_ends_the_stream_without_an_error(with_client, name):
    given, (*legal, illegal) = stages(), VIOLATIONS[name]

    async def scenario(client):
        call = client.process()
        await call.exchange(*legal)
        await call.send(illegal)
        return await call.receive()

    assert with_client(scenario, given) is None
    assert counted(given.metrics.streams_ended) == {("protocol",): 1}


def test_bytes_that_are_no_message_end_their_stream_alone(with_client):
    async def scenario(client):
        broken = client.process(serializer=lambda message: b"\xff\xff\xff")
        await broken.send(REQUEST[0])
        status = await broken.status()
        return status, await client.process().exchange(*REQUEST)

    given = stages()
    status, (_, routed) = with_client(scenario, given)
    assert status is StatusCode.OK  # Envoy then passes the request on
    assert counted(given.metrics.streams_ended)[("protocol",)] == 1
    assert set_headers(routed)["x-llm-pool"] == "short"


def test_another_method_is_not_implemented(with_client):
    async def scenario(client):
        return await client.process("/envoy.service.ext_proc.v3.ExternalProcessor/No").status()

    assert with_client(scenario, stages()) is StatusCode.UNIMPLEMENTED


def test_many_streams_of_one_connection_do_not_mix(with_client):
    async def scenario(client):
        async def ask(limit):
            text = PROMPT.replace(b"100", str(limit).encode())
            call = client.process()
            [_, routed] = await call.exchange(REQUEST[0], body("request", text, end=True))
            return set_headers(routed)["x-llm-pool"]

        return await asyncio.gather(*(ask(limit) for limit in (10, 20_000) * 10))

    assert with_client(scenario, stages()) == ["short", "long"] * 10
