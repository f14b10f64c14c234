"""A reply that is put together of parts, beside the one of the general way."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.values import Observation, Outcome
from extproc.build import build_learner
from extproc.config.settings import Settings
from extproc.names import NAMESPACE, NOTE
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.request.reader import Endpoint, read_request
from extproc.routing.route import route
from extproc.stream import plain_replies
from extproc.stream.decision import from_note
from extproc.stream.sampling import Sampling
from extproc.stream.stream import Stream
from tests.support.conversation import counted, decoded, stages

MODELS = ["m", "ü%/\n1", "1111", "x" * 200]


def body(text="Where do owls sleep?", **changes):
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "m", "max_tokens": 9, "messages": messages} | changes).encode()


def learner(rules):
    pools = [{"name": pool.name, "max_model_len": pool.max_model_len} for pool in rules.pools]
    made = build_learner(Settings.model_validate({"pools": pools}))
    for model in MODELS:
        for _ in range(60):
            asked = route(read_request(Endpoint.CHAT, body(model=model)), "", made, rules).asked
            made.learn(Observation(asked, Outcome.COMPLETE, 8192, 12, 5))
    return made


PLAIN = dataclasses.replace(
    stages(),
    learner=learner(stages().rules),
    sampling=Sampling(lambda: 0.0, all_below=0.01),
    draw=lambda: 0.9,
)
SHADOW = dataclasses.replace(PLAIN, rules=dataclasses.replace(PLAIN.rules, is_shadow=True))


def head():
    message = ProcessingRequest()
    for key, value in ((":path", b"/v1/chat/completions"), (":method", b"POST")):
        message.request_headers.headers.headers.add(key=key, raw_value=value)
    message.protocol_config.request_body_mode = ProcessingMode.BUFFERED
    return message


def answer(given, data):
    quick, general = Stream(given), Stream(given)
    for part in (head(), ProcessingRequest(request_body={"body": data, "end_of_stream": True})):
        replies = decoded(quick.receive_encoded(part.SerializeToString()))
        assert list(map(said, replies)) == list(map(said, decoded(general.receive(part))))
        assert quick.finished == general.finished
    return replies[0]


def said(reply):
    """Return a reply's part and its note, whose text may leave out what is usual or not."""
    note = reply.dynamic_metadata[NAMESPACE][NOTE] if reply.HasField("dynamic_metadata") else ""
    return reply.request_headers, reply.request_body, from_note({NOTE: note}, PLAIN.rules)


@pytest.mark.parametrize("given_stages", [PLAIN, SHADOW], ids=["routed", "shadow"])
@given(
    model=st.sampled_from([*MODELS, "unknown"]),
    text=st.integers(0, 4000).map("owls ".__mul__),
    limit=st.integers(0, 100_000) | st.none(),
)
def test_it_is_that_of_the_general_way(given_stages, model, text, limit):
    answer(given_stages, body(text, model=model, max_tokens=limit))


def test_one_that_is_not_observed_has_no_note():
    assert not answer(PLAIN, body()).HasField("dynamic_metadata")
    assert answer(PLAIN, body(model="unknown")).HasField("dynamic_metadata")


def test_it_is_counted_and_told_like_any_other():
    told = []
    given_stages = dataclasses.replace(
        PLAIN,
        metrics=stages().metrics,
        decided=lambda pool, reason, collect: told.append((pool, reason, collect())),
    )
    answer(given_stages, body())
    assert told[0] == told[1]
    [decisions] = counted(given_stages.metrics.decisions).items()
    assert decisions == (("short", "prose/m", "fits", "calibrated"), 2.0)
    assert counted(given_stages.metrics.sequences) == {("short",): 2.0}


@pytest.mark.interpreted
def test_few_are_kept(monkeypatch):
    monkeypatch.setattr(plain_replies, "_KEPT", 2)
    given_stages = dataclasses.replace(PLAIN)
    for digits in range(2, 6):
        answer(given_stages, body(max_tokens=9**digits))
        assert 0 < len(given_stages.replies._kept) <= 2


def test_other_rules_take_the_general_way():
    rules = dataclasses.replace(PLAIN.rules, prefix_key=b"secret")
    answer(dataclasses.replace(PLAIN, rules=rules), body())
