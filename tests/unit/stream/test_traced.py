"""What a trace is told of the conversations, whose replies stay the same."""

import json

import pytest

from extproc.response.reader import Usage
from extproc.stream.session import Body, Direction, Head
from extproc.stream.stream import Stream
from extproc.stream.traced import TracedExchange
from tests.support.conversation import FILES, decoded, read, stages


class Told:
    """A trace that keeps what it is told."""

    def __init__(self):
        self.told = []

    def step(self, name):
        self.told.append(name)

    def decided(self, routed):
        self.told.append(("decided", routed.pool))

    def learning(self):
        self.told.append("learning")

    def learnt(self, pool, outcome):
        self.told.append(("learnt", pool, outcome))


def told(name, given=None, *, encoded=False):
    trace = Told()
    stream = Stream(given or stages(), trace)
    [path] = [file for file in FILES if file.stem == name]
    for turn in read(path):
        if encoded:
            stream.receive_encoded(turn.message.SerializeToString())
        else:
            stream.receive(turn.message)
    stream.close()
    return trace.told


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_traced_conversation_gets_the_same_replies(path):
    stream = Stream(stages(), Told())
    for turn in read(path):
        assert decoded(stream.receive(turn.message)) == turn.replies


def test_the_steps_of_an_unreadable_body_end_with_reading():
    assert told("unreadable") == ["read", ("decided", "long")]


@pytest.mark.parametrize("encoded", [False, True])
def test_the_steps_of_a_decision_are_told_in_order(encoded):
    steps = ["read", "estimate", "choose", ("decided", "short")]
    assert told("buffered-short", encoded=encoded) == steps


def sent(trace, given, path, body):
    """Return what is done with a request."""
    exchange = TracedExchange(given, trace)
    head = Head(Direction.REQUEST, {":method": "POST", ":path": path}, end_of_stream=False)
    exchange.on(head)
    return exchange.on(Body(Direction.REQUEST, json.dumps(body).encode(), end_of_stream=True))


def test_beginnings_that_are_remembered_are_asked_for_too():
    trace, turn = Told(), {"role": "user", "content": "word " * 500}
    body = {"model": "m", "messages": [turn]}
    action = sent(trace, stages(prefix_key=b"k" * 16), "/v1/chat/completions", body)
    assert "prefix" in action.note["routed"]
    assert trace.told[-1] == ("decided", "short")


def test_the_largest_of_several_prompts_is_asked_for_too():
    trace = Told()
    sent(trace, stages(), "/v1/embeddings", {"model": "m", "input": ["a word", "word " * 500]})
    assert trace.told[-1] == ("decided", "short")


def test_an_observed_answer_is_told_with_its_usage():
    learning, (name, pool, outcome) = told("observed")
    assert (learning, name, pool) == ("learning", "learnt", "short")
    assert isinstance(outcome, Usage)


def test_nothing_is_told_to_a_stream_without_a_trace():
    stream = Stream(stages())
    assert type(stream._exchange).__name__ == "Exchange"
