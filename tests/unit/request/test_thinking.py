"""How long a request lets the model think."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.reader import Endpoint, Thinking, read_request
from extproc.request.thinking import FIELDS, LOW_TOKENS, MEDIUM_TOKENS, read_thinking

ON, OFF = {"enable_thinking": True}, {"enable_thinking": False}


@pytest.mark.parametrize(
    ("body", "thinking"),
    [
        ({}, Thinking.UNSTATED),
        ({"chat_template_kwargs": OFF}, Thinking.OFF),
        ({"chat_template_kwargs": {"thinking": False}}, Thinking.OFF),
        ({"chat_template_kwargs": ON}, Thinking.MEDIUM),
        ({"chat_template_kwargs": {"reasoning_effort": "low"}}, Thinking.LOW),
        ({"chat_template_kwargs": {"thinking_budget": 512}}, Thinking.LOW),
        ({"reasoning_effort": "none"}, Thinking.OFF),
        ({"reasoning_effort": "minimal"}, Thinking.LOW),
        ({"reasoning_effort": "medium"}, Thinking.MEDIUM),
        ({"reasoning_effort": "max"}, Thinking.HIGH),
        ({"reasoning_effort": "much"}, Thinking.UNSTATED),
        ({"reasoning": {"effort": "high"}}, Thinking.HIGH),
        ({"reasoning": {"max_tokens": 4000}}, Thinking.MEDIUM),
        ({"reasoning": {"enabled": False}}, Thinking.OFF),
        ({"thinking": {"type": "disabled"}}, Thinking.OFF),
        ({"thinking": {"type": "enabled"}}, Thinking.MEDIUM),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, Thinking.LOW),
        ({"thinking": {"type": "adaptive"}}, Thinking.UNSTATED),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, Thinking.LOW),
        ({"thinking_token_budget": 0}, Thinking.OFF),
        ({"thinking_token_budget": LOW_TOKENS}, Thinking.LOW),
        ({"thinking_token_budget": LOW_TOKENS + 1}, Thinking.MEDIUM),
        ({"thinking_token_budget": MEDIUM_TOKENS}, Thinking.MEDIUM),
        ({"thinking_token_budget": MEDIUM_TOKENS + 1}, Thinking.HIGH),
        ({"thinking_token_budget": -1}, Thinking.UNSTATED),
        ({"thinking_token_budget": True}, Thinking.UNSTATED),
        # The switch of the template counts before the effort (build_chat_params).
        ({"chat_template_kwargs": ON, "reasoning_effort": "none"}, Thinking.MEDIUM),
        ({"chat_template_kwargs": OFF, "reasoning_effort": "high"}, Thinking.OFF),
        ({"thinking_token_budget": 100, "reasoning_effort": "high"}, Thinking.LOW),
    ],
)
def test_a_body_states_how_long_to_think(body, thinking):
    assert read_thinking(body) is thinking


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(FIELDS), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(FIELDS), values))
def test_any_body_can_be_read(body):
    assert read_thinking(body) in Thinking


@pytest.mark.parametrize(
    ("endpoint", "prompt", "thinking"),
    [
        (Endpoint.CHAT, {"messages": [{"content": "x"}]}, Thinking.LOW),
        (Endpoint.COMPLETION, {"prompt": "x"}, Thinking.LOW),
        (Endpoint.MESSAGES, {"messages": [{"content": "x"}]}, Thinking.LOW),
        (Endpoint.EMBEDDING, {"input": "x"}, Thinking.UNSTATED),
    ],
)
def test_a_request_that_generates_may_think(endpoint, prompt, thinking):
    body = json.dumps(prompt | {"thinking_token_budget": 5}).encode()
    assert read_request(endpoint, body).thinking is thinking


def test_a_body_of_many_values_is_read_in_part_and_states_it_too():
    many = {"messages": [{"content": "x"}], "logit_bias": {str(n): n for n in range(40_000)}}
    body = json.dumps(many | {"extra": [[]] * 40_000, "reasoning_effort": "low"}).encode()
    assert read_request(Endpoint.CHAT, body).thinking is Thinking.LOW
