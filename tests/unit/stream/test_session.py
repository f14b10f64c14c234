"""The ext_proc state machine, message by message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.protos.envoy.data.ai.v3.token_usage_pb2 import TokenUsage
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.stream.session import (
    CHUNK_BYTES,
    Body,
    Direction,
    FlowControl,
    Head,
    Proceed,
    ProtocolError,
    Session,
    Spent,
    Trailers,
    Wait,
)
from tests.support.conversation import decoded

NONE, STREAMED, BUFFERED, PARTIAL, DUPLEX, GRPC = (
    ProcessingMode.NONE,
    ProcessingMode.STREAMED,
    ProcessingMode.BUFFERED,
    ProcessingMode.BUFFERED_PARTIAL,
    ProcessingMode.FULL_DUPLEX_STREAMED,
    ProcessingMode.GRPC,
)
SHORT = Proceed(set_headers={"x-llm-pool": "short"}, note={"routed": "{}"})


def head(side="request", end=False, request=None, response=NONE, early=False, observe=False):
    """Headers, as the first message of a stream where a request mode is given."""
    message = ProcessingRequest(observability_mode=observe)
    getattr(message, f"{side}_headers").end_of_stream = end
    if request is not None:
        message.protocol_config.request_body_mode = request
        message.protocol_config.response_body_mode = response
        message.protocol_config.send_body_without_waiting_for_header_response = early
    return message


def body(data=b"{}", end=True, side="request", observe=False):
    message = ProcessingRequest(observability_mode=observe)
    part = getattr(message, f"{side}_body")
    part.body, part.end_of_stream = data, end
    return message


def trailers(side="request"):
    message = ProcessingRequest()
    getattr(message, f"{side}_trailers").SetInParent()
    return message


def run(session, *steps):
    """Feed messages with the actions on them; return all replies."""
    replies = []
    for message, action in steps:
        session.receive(message)
        replies.append(decoded(session.reply(action)))
    return replies


def kinds(replies):
    return [[reply.WhichOneof("response") for reply in some] for some in replies]


def returned(replies):
    """The body that full-duplex replies give back, and the marks of its end."""
    parts = [
        r.request_body.response.body_mutation.streamed_response
        for some in replies
        for r in some
        if r.WhichOneof("response") == "request_body"
    ]
    return b"".join(p.body for p in parts), [p.end_of_stream for p in parts]


def test_a_buffered_request_gets_one_reply_for_each_message():
    replies = run(Session(), (head(request=BUFFERED), Wait()), (body(), SHORT))
    assert kinds(replies) == [["request_headers"], ["request_body"]]


def test_the_decision_rides_on_the_buffered_body():
    _, [reply] = run(Session(), (head(request=BUFFERED), Wait()), (body(), SHORT))
    [option] = reply.request_body.response.header_mutation.set_headers
    assert (option.header.key, option.header.raw_value) == ("x-llm-pool", b"short")
    assert reply.request_body.response.clear_route_cache
    assert reply.dynamic_metadata["llm"]["routed"] == "{}"


def test_a_set_header_replaces_what_the_client_sent():
    _, [reply] = run(Session(), (head(request=BUFFERED), Wait()), (body(), SHORT))
    [option] = reply.request_body.response.header_mutation.set_headers
    assert option.append_action == option.OVERWRITE_IF_EXISTS_OR_ADD


def test_a_reply_without_headers_leaves_the_route_alone():
    [[reply]] = run(Session(), (head(request=BUFFERED), Proceed()))
    assert reply == ProcessingResponse(request_headers={"response": {}})


def test_streamed_bodies_get_a_reply_each():
    steps = [(head(request=STREAMED), Wait()), (body(end=False), Wait()), (body(), SHORT)]
    assert kinds(run(Session(), *steps)) == [
        ["request_headers"],
        ["request_body"],
        ["request_body"],
    ]


def test_an_early_body_lets_the_header_reply_wait_for_it():
    steps = [
        (head(request=STREAMED, early=True), Wait()),
        (body(end=False), Wait()),
        (body(), SHORT),
    ]
    replies = run(Session(), *steps)
    assert kinds(replies) == [[], [], ["request_headers", "request_body", "request_body"]]
    assert replies[2][0].request_headers.response.clear_route_cache
    assert not replies[2][1].request_body.response.HasField("header_mutation")


def test_a_duplex_body_is_held_back_until_the_decision_and_then_returned_whole():
    steps = [(head(request=DUPLEX), Wait()), (body(b"ab", end=False), Wait()), (body(b"c"), SHORT)]
    replies = run(Session(), *steps)
    assert kinds(replies) == [[], [], ["request_headers", "request_body"]]
    assert returned(replies) == (b"abc", [True])


def test_a_duplex_body_is_cut_into_chunks_that_fit_the_window():
    data = bytes(range(256)) * 1000
    replies = run(Session(), (head(request=DUPLEX), Wait()), (body(data), SHORT))
    whole, ends = returned(replies)
    assert whole == data
    assert ends == [False, False, False, False, True]
    chunk = replies[1][1].request_body.response.body_mutation.streamed_response
    assert len(chunk.body) == CHUNK_BYTES


def test_a_duplex_body_of_whole_chunks_ends_with_the_last():
    data = b"x" * (2 * CHUNK_BYTES)
    assert returned(run(Session(), (head(request=DUPLEX), Wait()), (body(data), SHORT))) == (
        data,
        [False, True],
    )


def test_a_duplex_body_that_ends_in_trailers_has_no_end_mark():
    steps = [(head(request=DUPLEX), Wait()), (body(b"ab", end=False), Wait()), (trailers(), SHORT)]
    replies = run(Session(), *steps)
    assert kinds(replies) == [[], [], ["request_headers", "request_body", "request_trailers"]]
    assert returned(replies) == (b"ab", [False])


def test_an_empty_duplex_body_still_gets_its_end():
    replies = run(Session(), (head(request=DUPLEX), Wait()), (body(b""), SHORT))
    assert returned(replies) == (b"", [True])


def test_after_a_duplex_decision_chunks_pass_on_at_once():
    steps = [
        (head(request=DUPLEX), Wait()),
        (body(b"a", end=False), SHORT),
        (body(b"b", end=False), Proceed()),
        (body(b"", end=True), Proceed()),
    ]
    replies = run(Session(), *steps)
    assert [len(some) for some in replies] == [0, 2, 1, 1]
    assert returned(replies) == (b"ab", [False, False, True])


def test_a_streamed_response_gets_a_reply_for_each_message():
    steps = [
        (head("response", request=BUFFERED, response=STREAMED), Proceed()),
        (body(b"x", end=False, side="response"), Proceed()),
        (body(b"", side="response"), Proceed()),
    ]
    replies = run(Session(), *steps)
    assert kinds(replies) == [["response_headers"], ["response_body"], ["response_body"]]


def test_a_duplex_response_is_returned():
    steps = [
        (head("response", request=DUPLEX, response=DUPLEX), Proceed()),
        (body(b"xy", end=False, side="response"), Proceed()),
        (trailers("response"), Proceed()),
    ]
    replies = run(Session(), *steps)
    assert kinds(replies) == [["response_headers"], ["response_body"], ["response_trailers"]]
    assert replies[1][0].response_body.response.body_mutation.streamed_response.body == b"xy"


def test_an_observed_stream_is_owed_nothing():
    first = head(request=NONE, response=STREAMED, observe=True)
    session = Session()
    assert run(session, (first, Proceed()), (body(observe=True, side="response"), SHORT)) == [
        [],
        [],
    ]


def test_an_observed_stream_carries_the_note_of_the_routing_filter():
    first = head(request=NONE, response=STREAMED, observe=True)
    first.metadata_context.filter_metadata["llm"].update({"routed": "x", "list": [1]})
    event = Session().receive(first)
    assert event == Head(Direction.REQUEST, {}, False, {"routed": "x"}, observed=True)


def test_header_values_come_from_either_field():
    message = head()
    message.request_headers.headers.headers.add(key="a", raw_value=b"caf\xe9")
    message.request_headers.headers.headers.add(key="b", value="text")
    assert Session().receive(message).headers == {"a": "café", "b": "text"}


def test_a_buffered_body_before_trailers_is_whole():
    session = Session()
    session.receive(head(request=BUFFERED))
    assert session.receive(body(end=False)) == Body(Direction.REQUEST, b"{}", True, whole=True)
    assert session.receive(trailers()) == Trailers(Direction.REQUEST)


def test_a_partly_buffered_body_without_its_end_is_not_whole():
    session = Session()
    session.receive(head(request=PARTIAL))
    assert not session.receive(body(end=False)).end_of_stream


def test_flow_control_is_owed_nothing():
    session = Session()
    session.receive(head(request=DUPLEX))
    update = ProcessingRequest(client_window_update={"window_increment_sidestream_to_upstream": 1})
    assert session.receive(update) == FlowControl()
    assert session.reply(Wait()) == []


def test_flow_control_lets_nothing_go_that_is_held():
    session = Session()
    run(session, (head(request=DUPLEX), Wait()))
    update = ProcessingRequest(client_window_update={"window_increment_sidestream_to_upstream": 1})
    assert run(session, (update, Proceed())) == [[]]
    assert kinds(run(session, (body(), SHORT))) == [["request_headers", "request_body"]]


def test_a_reply_before_any_message_is_empty():
    assert Session().reply(Proceed()) == []


FINISHED = [
    ([(head(request=BUFFERED), Wait())], False),
    ([(head(request=BUFFERED), Proceed())], True),
    ([(head(request=BUFFERED), Wait()), (body(), SHORT)], True),
    ([(head(request=BUFFERED), Wait()), (body(end=False), SHORT)], True),
    ([(head(request=BUFFERED, end=True), Proceed())], True),
    ([(head(request=STREAMED), Wait()), (body(end=False), SHORT)], False),
    ([(head(request=STREAMED, early=True), Wait()), (body(), Wait())], False),
    ([(head(request=STREAMED, early=True), Wait()), (body(), SHORT)], True),
    ([(head(request=DUPLEX), Wait()), (body(end=False), SHORT)], False),
    ([(head(request=DUPLEX), Wait()), (body(), SHORT)], True),
    ([(head(request=BUFFERED, response=STREAMED), Wait()), (body(), SHORT)], False),
    ([(head(), Wait()), (body(), SHORT)], False),
    ([(head("response", request=NONE, observe=True), Proceed())], False),
    ([(head("response", request=NONE, observe=True, end=True), Proceed())], True),
    ([(head("response", request=BUFFERED), Proceed())], False),
]


@pytest.mark.parametrize(("steps", "finished"), FINISHED)
def test_a_stream_is_finished_once_nothing_more_can_be_learnt_or_said(steps, finished):
    session = Session()
    run(session, *steps)
    assert session.finished is finished


def test_a_stream_that_has_not_begun_is_not_finished():
    assert not Session().finished


ILLEGAL = [
    ([], ProcessingRequest(), "a message without a part of the request or the response"),
    ([], head(request=GRPC), "body mode GRPC: this service reads JSON bodies"),
    ([head()], head(), "request headers after headers"),
    ([head(request=BUFFERED), body()], body(), "request body after the end of the request"),
    ([head(request=NONE)], body(), "request body though its mode is NONE"),
    (
        [head(request=BUFFERED), body(end=False)],
        body(),
        "a second request body though it is buffered",
    ),
    (
        [head(request=PARTIAL), body(end=False)],
        body(),
        "a second request body though it is buffered",
    ),
    ([head(request=STREAMED), body(end=False)], head(), "request headers after body"),
    ([head(end=True)], body(), "request body after the end of the request"),
    ([head(), trailers()], trailers(), "request trailers after the end of the request"),
    ([head("response")], head(), "request headers after the response has begun"),
    ([head()], head("response", observe=True), "observability_mode changes within a stream"),
]


@pytest.mark.parametrize(("before", "message", "text"), ILLEGAL)
def test_an_illegal_message_is_refused_by_name(before, message, text):
    session = Session()
    for earlier in before:
        session.receive(earlier)
    with pytest.raises(ProtocolError, match=f"^{text}$"):
        session.receive(message)


MESSAGES = st.builds(
    lambda make, side, end, data: make(side, end, data),
    st.sampled_from(
        [
            lambda side, end, data: head(side, end),
            lambda side, end, data: body(data, end, side),
            lambda side, end, data: trailers(side),
        ]
    ),
    st.sampled_from(["request", "response"]),
    st.booleans(),
    st.binary(max_size=8),
)
ACTIONS = st.sampled_from([Wait(), Proceed(), SHORT])
MODES = st.sampled_from([NONE, STREAMED, BUFFERED, PARTIAL, DUPLEX])


def opening(request, response, early):
    return head(request=request, response=response, early=early)


def state(session):
    parts = (session._modes, session._request, session._response)
    inner = [getattr(part, name) for part in parts for name in dir(part) if name[0] != "_"]
    return repr((inner, session._current.direction, session._released))


@given(MODES, MODES, st.booleans(), st.lists(st.tuples(MESSAGES, ACTIONS), max_size=12))
def test_an_illegal_message_changes_nothing(request_mode, response_mode, early, steps):
    session = Session()
    session.receive(opening(request_mode, response_mode, early))
    for message, action in steps:
        before = state(session)
        try:
            session.receive(message)
        except ProtocolError:
            assert state(session) == before
        else:
            session.reply(action)


@given(MODES, MODES, st.booleans(), st.lists(st.tuples(MESSAGES, ACTIONS), max_size=12))
def test_replies_come_once_for_each_message_in_order(request_mode, response_mode, early, steps):
    session, asked, answered = Session(), ["request_headers"], []
    session.receive(opening(request_mode, response_mode, early))
    answered += [r.WhichOneof("response") for r in decoded(session.reply(Proceed()))]
    for message, _ in steps:
        try:
            session.receive(message)
        except ProtocolError:
            continue
        kind = message.WhichOneof("request")
        if not is_duplex(kind, request_mode, response_mode):
            asked.append(kind)
        replies = [r.WhichOneof("response") for r in decoded(session.reply(Proceed()))]
        answered += [r for r in replies if not is_duplex(r, request_mode, response_mode)]
    assert answered == asked


def is_duplex(kind, request_mode, response_mode):
    """Whether a message is a body whose bytes, not whose message, are answered."""
    return (kind, DUPLEX) in ((("request_body"), request_mode), ("response_body", response_mode))


@given(
    st.lists(st.tuples(st.binary(max_size=100), ACTIONS), min_size=1, max_size=10), st.booleans()
)
def test_a_duplex_body_is_returned_byte_for_byte_whenever_it_is_released(pieces, with_trailers):
    session, replies = Session(), []
    session.receive(head(request=DUPLEX))
    replies.append(decoded(session.reply(Wait())))
    for i, (data, action) in enumerate(pieces):
        last = i == len(pieces) - 1 and not with_trailers
        session.receive(body(data, end=last))
        replies.append(decoded(session.reply(Proceed() if last else action)))
    if with_trailers:
        session.receive(trailers())
        replies.append(decoded(session.reply(Proceed())))
    whole, ends = returned(replies)
    assert whole == b"".join(data for data, _ in pieces)
    assert ends.count(True) == (not with_trailers)


def observed(**parts):
    """Response headers or trailers as the observing filter sees them."""
    message = ProcessingRequest(observability_mode=True, **parts)
    message.metadata_context.SetInParent()
    return message


def usage(**fields):
    """Response trailers with the usage that Envoy has read."""
    message = observed(response_trailers={})
    message.metadata_context.typed_filter_metadata["envoy.ai.token_usage"].Pack(
        TokenUsage(**fields)
    )
    return message


def test_a_whole_body_may_be_replaced():
    given = Proceed({"content-length": "9"}, body=b'{"a": "b"}')
    _, [reply] = run(Session(), (head(request=BUFFERED), Wait()), (body(), given))
    assert reply.request_body.response.body_mutation.body == b'{"a": "b"}'


@pytest.mark.parametrize(("mode", "whole"), [(BUFFERED, True), (PARTIAL, False), (STREAMED, False)])
def test_only_a_buffered_body_is_whole(mode, whole):
    session = Session()
    session.receive(head(request=mode))
    session.reply(Wait())
    assert session.receive(body()) == Body(Direction.REQUEST, b"{}", True, whole)


def test_a_response_says_how_many_servers_were_asked():
    message = observed(response_headers={})
    message.attributes["envoy.filters.http.ext_proc"]["upstream.request_attempt_count"] = 2
    assert Session().receive(message).attempts == 2


@pytest.mark.parametrize("count", ["2", None, float("nan"), float("-inf"), -1])
def test_a_count_that_is_none_is_one(count):
    message = observed(response_headers={})
    message.attributes["llm.observer"]["upstream.request_attempt_count"] = count
    assert Session().receive(message).attempts == 1


def test_trailers_bring_the_usage_that_envoy_has_read():
    message = usage(
        input_tokens={"value": 7},
        output_tokens={"value": 3},
        input_token_details={"cached_tokens": {"value": 2}},
        extraction_status=TokenUsage.COMPLETE,
    )
    assert Session().receive(message) == Trailers(Direction.RESPONSE, Spent(7, 3, 2))


@pytest.mark.parametrize(
    "fields",
    [
        {"output_tokens": {"value": 3}},
        {"input_tokens": {"value": 7}, "extraction_status": TokenUsage.FAILED},
    ],
)
def test_a_usage_that_envoy_could_not_read_is_none(fields):
    assert Session().receive(usage(**fields)) == Trailers(Direction.RESPONSE)


def test_a_usage_that_is_no_message_is_none():
    message = usage()
    message.metadata_context.typed_filter_metadata["envoy.ai.token_usage"].value = b"\xff"
    assert Session().receive(message) == Trailers(Direction.RESPONSE)


def test_where_the_modes_are_not_told_no_reply_waits_for_the_body():
    session = Session()
    replies = run(session, (head(), Wait()), (body(end=False), Wait()), (body(), SHORT))
    assert kinds(replies) == [["request_headers"], ["request_body"], ["request_body"]]
