"""A stream without what was only told because the service asked."""

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
