"""The one field that is added to a client's body."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.stream.usage_request import ASKED, ask_for_usage

BODIES = st.dictionaries(st.text().filter(lambda k: k != "stream_options"), st.text(), min_size=1)


@given(BODIES, st.sampled_from(["", " ", "\n\t"]))
def test_the_body_says_one_thing_more(fields, space):
    asked = json.loads(ask_for_usage((space + json.dumps(fields)).encode()))
    assert asked == {"stream_options": {"include_usage": True}, **fields}


@pytest.mark.parametrize("body", [b'{"a":1e400, "a" : "\\u00e9"}', b' {\r\n"stream":true}\n'])
def test_every_byte_of_the_client_stays(body):
    assert ask_for_usage(body).replace(ASKED, b"", 1) == body
