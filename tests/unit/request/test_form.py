"""What form a request demands of its answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.form import FIELDS, read_form
from extproc.request.reader import Endpoint, Form, read_request

SCHEMA = {"type": "json_schema", "json_schema": {"schema": {}}}
CHAT = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ({}, Form.FREE),
        ({"response_format": {"type": "text"}}, Form.FREE),
        ({"response_format": None}, Form.FREE),
        ({"response_format": {"type": "json_object"}}, Form.SHAPED),
        ({"response_format": SCHEMA}, Form.SHAPED),
        ({"response_format": {"type": "structural_tag", "format": {}}}, Form.SHAPED),
        ({"text": {"format": SCHEMA}}, Form.SHAPED),
        ({"text": {"format": {"type": "text"}}}, Form.FREE),
        ({"text": {"verbosity": "low"}}, Form.FREE),
        ({"text": "x"}, Form.FREE),
        ({"output_config": {"format": SCHEMA}}, Form.SHAPED),
        ({"output_config": {"effort": "low"}}, Form.FREE),
        ({"output_format": SCHEMA}, Form.SHAPED),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, Form.SHAPED),
        ({"guided_regex": "[0-9]+"}, Form.SHAPED),
        ({"guided_json": None}, Form.FREE),
        ({"tool_choice": "auto"}, Form.FREE),
        ({"tool_choice": "none"}, Form.FREE),
        ({"tool_choice": {"type": "auto"}}, Form.FREE),
        ({"tool_choice": "required"}, Form.SHAPED),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, Form.SHAPED),
        ({"tool_choice": {"type": "any"}}, Form.SHAPED),
        ({"stop": "\n"}, Form.STOPS),
        ({"stop": ["\n"]}, Form.STOPS),
        ({"stop": []}, Form.FREE),
        ({"stop": ""}, Form.FREE),
        ({"stop_sequences": ["\n"]}, Form.STOPS),
        ({"stop": "\n", "response_format": SCHEMA}, Form.SHAPED),
    ],
)
def test_a_body_states_the_form_of_its_answer(body, form):
    assert read_form(body) is form


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(("type", "format")), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(FIELDS), values))
def test_any_body_can_be_read(body):
    assert read_form(body) in Form


@pytest.mark.parametrize(
    ("endpoint", "body", "form"),
    [
        (Endpoint.CHAT, CHAT | {"response_format": {"type": "json_object"}}, Form.SHAPED),
        (Endpoint.CHAT, CHAT | {"response_format": SCHEMA}, Form.SHAPED),
        (Endpoint.CHAT, CHAT | {"stop": ["\n"]}, Form.STOPS),
        (Endpoint.CHAT, CHAT, Form.FREE),
        (Endpoint.COMPLETION, {"prompt": "x", "stop": "\n"}, Form.STOPS),
        (Endpoint.RESPONSES, {"input": "x", "text": {"format": SCHEMA}}, Form.SHAPED),
        (Endpoint.MESSAGES, CHAT | {"tool_choice": {"type": "any"}}, Form.SHAPED),
        (Endpoint.GENERATE, {"token_ids": [1], "sampling_params": {"stop": "\n"}}, Form.STOPS),
        (Endpoint.EMBEDDING, {"input": "x", "stop": "\n"}, Form.FREE),
    ],
)
def test_the_answer_to_each_api_has_a_form(endpoint, body, form):
    assert read_request(endpoint, json.dumps(body).encode()).form is form


def test_a_body_of_many_values_is_read_in_part_and_states_it_too():
    many = CHAT | {"extra": [[]] * 40_000, "guided_choice": ["yes", "no"]}
    assert read_request(Endpoint.CHAT, json.dumps(many).encode()).form is Form.SHAPED
