"""A stream without what was only told because the service asked."""

from hypothesis import given
from hypothesis import strategies as st

from extproc.local.usage_event import less_usage

LAST = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
NAMED = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"system_fingerprint":"v"}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1},"system_fingerprint":"v"}\n\n'
DONE = b"data: [DONE]\n\n"


def test_the_usage_event_is_left_out():
    assert less_usage(LAST + USAGE + DONE) == LAST + DONE


def test_it_does_not_matter_which_event_has_the_fingerprint():
    assert less_usage(NAMED + DONE) == less_usage(LAST + USAGE + DONE)


def test_every_other_byte_counts():
    assert less_usage(LAST + DONE) != less_usage(LAST.replace(b"stop", b"length") + DONE)


def test_a_chunk_with_text_and_usage_is_kept():
    both = b'data: {"choices":[{"text":"a"}],"usage":{"prompt_tokens":1}}\n\n'
    assert less_usage(both + DONE) == both + DONE


def test_spaces_in_the_usage_event_do_not_matter():
    spaced = b'data: {"choices" : [ ] , "usage" : { "prompt_tokens": 1 } }\n\n'
    assert less_usage(LAST + spaced + DONE) == LAST + DONE


def test_no_usage_is_no_usage_event():
    null = b'data: {"choices":[],"usage":null}\n\n'
    assert less_usage(null + DONE) == null + DONE


def test_a_document_stays_but_for_its_fingerprint():
    assert less_usage(b'{"choices":[{"text":"a"}]}') == b'{"choices":[{"text":"a"}]}'


@given(st.binary(max_size=200))
def test_what_is_no_stream_passes(data):
    if b'"choices"' not in data and b"system_fingerprint" not in data:
        assert less_usage(data) == data


@given(st.lists(st.sampled_from([LAST, NAMED, USAGE, DONE]), max_size=6))
def test_removing_it_twice_changes_nothing_more(events):
    once = less_usage(b"".join(events))
    assert less_usage(once) == once
    assert b'"usage"' not in once
