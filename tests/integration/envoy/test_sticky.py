"""Conversations that stay in their pool, through the real Envoy."""

import pytest

from extproc.local.children import StackError
from extproc.local.envoy import find_envoy
from tests.support.local_stack import running

TEXT = "Where do owls sleep at noon? " * 100


@pytest.fixture(scope="module", autouse=True)
def envoy():
    try:
        find_envoy()
    except StackError as error:
        pytest.skip(str(error))


def asked(stack, *texts, limit=5, **headers):
    """Send a chat; return the pool that answered, and why."""
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)
    ]
    body = {"model": stack.model, "max_tokens": limit, "messages": messages}
    answer = stack.post("/v1/chat/completions", body, **headers)
    assert answer.status == 200
    return answer.pool, answer.headers["x-llm-reason"]


def test_a_conversation_stays_by_its_header():
    with running(sticky={"by": "header"}) as stack:
        assert asked(stack, TEXT, limit=9000, x_session_id="a") == ("long", "capacity")
        assert asked(stack, "Hello", x_session_id="a") == ("long", "sticky")
        assert asked(stack, "Hello", x_session_id="b") == ("short", "fits")
        assert asked(stack, "Hello") == ("short", "fits")


def test_a_conversation_stays_by_its_messages():
    with running(sticky={"by": "messages"}) as stack:
        assert asked(stack, TEXT, limit=9000) == ("long", "capacity")
        assert asked(stack, TEXT, "In trees.", "All of them?") == ("long", "sticky")
        assert asked(stack, TEXT + "So?") == ("short", "fits")
