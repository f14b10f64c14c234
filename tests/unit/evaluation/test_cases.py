"""What is read of a request, and its truth."""

import json

from extproc.evaluation.cases import TEMPLATES, Draft, read_cases
from extproc.evaluation.lengths import Length
from tests.support.evaluation_cases import Words, reader

TOOL = {"type": "function", "function": {"name": "find", "parameters": {}}}


def test_a_case_is_what_the_service_reads():
    body = {
        "messages": [{"role": "user", "content": "h\u00e9 owl"}],
        "max_tokens": 7,
        "tools": [TOOL],
    }
    case = reader().read(Draft("x", body, 30, 5), ascii_only=True)
    structured = len(json.dumps(TOOL, separators=(",", ":")))
    assert (case.messages, case.tools, case.structured_bytes) == (1, 1, structured)
    assert case.asked.measure.text_bytes == len("h\u00e9 owl".encode()) + structured
    assert (case.asked.model, case.asked.output_limit) == ("words", 7)


def test_a_case_needs_the_stated_limit_or_else_the_answer():
    body = {"messages": [{"role": "user", "content": "owl"}]}
    assert reader().read(Draft("x", body, 30, 5), ascii_only=False).needed == 35
    limited = Draft("x", {**body, "max_tokens": 100}, 30, 5)
    assert reader().read(limited, ascii_only=False).needed == 130


def test_a_users_requests_are_counted_and_those_with_images_left_out():
    image = {"type": "image_url", "image_url": {"url": "https://example.org/owl.png"}}
    bodies = (
        {"messages": [{"role": "user", "content": "two owls"}]},
        {"messages": [{"role": "user", "content": [image]}]},
        {"messages": 7, "truncate_prompt_tokens": 5},
        {"prompt": "three more owls", "max_tokens": 9},
    )
    length = Length(1, 44)
    cases = list(read_cases(bodies, Words(), TEMPLATES[0], lambda rng: length, "1"))
    constant = TEMPLATES[0].tokens(1, 0)
    assert [case.prompt_tokens - constant for case in cases] == [2, 3]
    assert [case.needed - case.prompt_tokens for case in cases] == [44, 9]
