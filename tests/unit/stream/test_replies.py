"""Replies are what protobuf would encode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.protos.envoy.config.core.v3.base_pb2 import HeaderValueOption
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from extproc.stream.replies import chunk, reply

PARTS = ("request_headers", "request_body", "response_headers", "response_body")
NAMES = st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1)
VALUES = st.text(st.characters(codec="latin-1"), max_size=300)
NOTES = st.dictionaries(NAMES, st.text(max_size=300) | st.floats(allow_nan=False) | st.booleans())


def expected(part, headers, note, body):
    """The same reply, built of messages."""
    message = ProcessingResponse()
    common = getattr(message, part).response
    common.SetInParent()
    for key, value in headers.items():
        option = common.header_mutation.set_headers.add()
        option.header.key, option.header.raw_value = key, value.encode("latin-1")
        option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    common.clear_route_cache = bool(headers)
    if body is not None:
        common.body_mutation.body = body
    if note:
        message.dynamic_metadata.update({"llm": note})
    return message


@given(
    st.sampled_from(PARTS),
    st.dictionaries(NAMES, VALUES),
    NOTES,
    st.none() | st.binary(max_size=70_000),
)
def test_a_reply_says_what_it_was_told(part, headers, note, body):
    found = ProcessingResponse.FromString(reply(part, headers, note, body))
    assert found == expected(part, headers, note, body)


@pytest.mark.parametrize("part", ["request_trailers", "response_trailers"])
def test_a_reply_to_trailers_changes_nothing(part):
    assert ProcessingResponse.FromString(reply(part)) == ProcessingResponse(**{part: {}})


@pytest.mark.parametrize("data", [b"", b"x" * 62_000])
@pytest.mark.parametrize("ends", [True, False])
def test_a_chunk_is_a_piece_of_a_body(data, ends):
    found = ProcessingResponse.FromString(chunk("request_body", data, ends=ends))
    piece = found.request_body.response.body_mutation.streamed_response
    assert (piece.body, piece.end_of_stream) == (data, ends)


def test_what_latin_1_cannot_say_is_replaced():
    found = ProcessingResponse.FromString(reply("request_body", {"k": "\u4e2d"}))
    [option] = found.request_body.response.header_mutation.set_headers
    assert option.header.raw_value == b"?"
