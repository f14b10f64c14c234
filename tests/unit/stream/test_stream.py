"""One stream from its first message to what it teaches."""

import pytest

from extproc.budget.estimate import Basis
from extproc.budget.values import Asked, Measure
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.stream.session import Session
from extproc.stream.stream import Stream
from tests.support.conversation import FILES, counted, decoded, read, stages


def play(name, given):
    stream = Stream(given)
    [path] = [file for file in FILES if file.stem == name]
    for turn in read(path):
        stream.receive(turn.message)
    return stream


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_conversation_gets_its_replies(path):
    stream = Stream(stages())
    for turn in read(path):
        assert decoded(stream.receive(turn.message)) == turn.replies
    assert stream.finished
    stream.close()
    assert stream.error is None


def test_an_observed_answer_teaches_its_category():
    given = stages()
    play("observed", given).close()
    assert given.learner.learnt().categories["prose/m"]["bytes_per_token"] == pytest.approx(
        0.95 * 4 + 0.05 * 5
    )


def test_an_answer_teaches_once():
    given = stages()
    stream = play("observed", given)
    stream.close()
    stream.close()
    assert given.learner.learnt().categories["prose/m"]["samples"] == 1


def test_an_unreadable_body_is_counted_by_reason():
    given = stages()
    play("unreadable", given)
    assert counted(given.metrics.unreadable) == {("json",): 1}


def test_a_broken_protocol_ends_the_stream_without_an_answer():
    given = stages()
    stream = Stream(given)
    assert stream.receive(ProcessingRequest()) == []
    assert stream.finished
    stream.close()
    assert counted(given.metrics.streams_ended) == {("protocol",): 1}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_messages_as_they_were_sent_get_the_same_replies(path):
    stream = Stream(stages())
    for turn in read(path):
        replies = stream.receive_encoded(turn.message.SerializeToString())
        assert decoded(replies) == turn.replies


@pytest.mark.parametrize("data", [b"\xff", b"\x12\x7f", b'{"request": {}}'])
def test_bytes_that_are_no_message_are_a_broken_protocol(data):
    given = stages()
    stream = Stream(given)
    assert stream.receive_encoded(data) == []
    assert stream.finished
    stream.close()
    assert counted(given.metrics.streams_ended) == {("protocol",): 1}


def test_a_request_is_awaited_until_its_body_is_there():
    stream, awaited = Stream(stages()), []
    [path] = [file for file in FILES if file.stem == "buffered-short"]
    for turn in read(path):
        stream.receive(turn.message)
        awaited.append(stream.awaits_request)
    assert awaited == [True, False]


def test_an_observed_request_is_not_awaited():
    assert not play("observed", stages()).awaits_request


def test_a_client_that_leaves_is_counted():
    given = stages()
    Stream(given).close()
    assert counted(given.metrics.streams_ended) == {("left",): 1}


@pytest.mark.parametrize(("name", "outcome"), [("content-length", "left"), ("te", "left_chunked")])
def test_a_stream_that_ends_before_a_body_is_told_apart_by_its_length(name, outcome):
    given = stages()
    stream = Stream(given)
    [path] = [file for file in FILES if file.stem == "buffered-short"]
    head = next(iter(read(path))).message
    head.request_headers.headers.headers.add(key=name, raw_value=b"120")
    stream.receive(head)
    stream.close()
    assert counted(given.metrics.streams_ended) == {(outcome,): 1}


class Broken:
    """An estimator with a bug in it."""

    def budget(self, asked):
        raise ZeroDivisionError

    def observe(self, observation):
        raise ZeroDivisionError


def broken():
    given = stages()
    given.learner.estimator = Broken()
    return given


def test_a_fault_of_ours_lets_the_request_pass_on_unchanged():
    given = broken()
    [path] = [file for file in FILES if file.stem == "buffered-short"]
    stream = Stream(given)
    first, second = [decoded(stream.receive(turn.message)) for turn in read(path)]
    assert [str(r) for r in first + second] == [
        "request_headers {\n  response {\n  }\n}\n",
        "request_body {\n  response {\n  }\n}\n",
    ]
    stream.close()
    assert counted(given.metrics.streams_ended) == {("fault",): 1}


def test_after_a_fault_a_duplex_body_is_still_given_back():
    given = broken()
    stream = play("duplex", given)
    assert isinstance(stream.error, ZeroDivisionError)
    [path] = [file for file in FILES if file.stem == "duplex"]
    stream = Stream(given)
    replies = [r for turn in read(path) for r in decoded(stream.receive(turn.message))]
    bodies = [r.request_body.response.body_mutation.streamed_response.body for r in replies]
    assert b"".join(bodies) == b'{"prompt":[1,2],"max_tokens":5}'


def test_after_a_fault_nothing_more_is_decided():
    given = broken()
    stream = play("buffered-short", given)
    given.learner.estimator = stages().learner.estimator
    [path] = [file for file in FILES if file.stem == "buffered-short"]
    again = Stream(given)
    again.error = stream.error
    [reply] = [r for turn in read(path) for r in decoded(again.receive(turn.message))][1:]
    assert not reply.request_body.response.header_mutation.set_headers


@pytest.mark.parametrize("attempts", ["inf", "-inf", "nan", "1e308"])
def test_an_absurd_attribute_is_one_attempt(attempts):
    given = stages()
    stream = Stream(given)
    message = ProcessingRequest(observability_mode=True)
    message.response_headers.headers.headers.add(key=":status", raw_value=b"200")
    message.attributes["f"]["upstream.request_attempt_count"] = float(attempts)
    assert stream.receive(message) == []
    assert stream.error is None


@pytest.mark.interpreted
@pytest.mark.parametrize("half", ["receive", "reply"])
def test_a_fault_of_the_session_ends_the_stream_without_a_reply(half, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    given = stages()
    stream = Stream(given)
    monkeypatch.setattr(Session, half, fail)
    [path] = [file for file in FILES if file.stem == "buffered-short"]
    assert stream.receive(read(path)[0].message) == []
    assert stream.finished
    stream.close()
    assert counted(given.metrics.streams_ended) == {("fault",): 1}


def test_a_fault_while_learning_is_counted():
    given = broken()
    stream = play("observed", given)
    stream.close()
    assert counted(given.metrics.streams_ended) == {("fault",): 1}
    assert isinstance(stream.error, ZeroDivisionError)


def test_open_streams_are_counted_down():
    given = stages()
    stream = Stream(given)
    assert given.metrics.streams.now == 1
    stream.close()
    stream.close()
    assert given.metrics.streams.now == 0


def test_a_learnt_ratio_changes_the_budget():
    given = stages()
    play("observed", given).close()
    budget = given.learner.budget(Asked("m", "prose", Measure(40000), 0))
    assert budget.basis is Basis.CALIBRATED
    assert budget.tokens < 10000


def test_a_new_stream_is_not_finished():
    assert not Stream(stages()).finished
