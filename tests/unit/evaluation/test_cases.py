"""What is read of a request, and its truth."""

import json

import pytest

from extproc.config.settings import Settings
from extproc.evaluation.cases import TEMPLATES, Case, Draft, read_cases, single_prompts
from extproc.evaluation.lengths import DrawnLength
from extproc.evaluation.replay import replay
from extproc.evaluation.rivals import OURS, make_rivals
from extproc.routing.pools import Verdict
from tests.support.evaluation_cases import Words, reader

CONSTANT = TEMPLATES[0].tokens(1, 0)
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
        {"input": ["an owl that is cut"], "truncate_prompt_tokens": 2},
        {"prompt": "three more owls", "max_tokens": 9},
    )
    cases = read(*bodies)
    assert [case.prompt_tokens - CONSTANT for case in cases] == [2, 3]
    assert [case.needed - case.prompt_tokens for case in cases] == [44, 9]


def read(*bodies: dict) -> list[Case]:
    return list(read_cases(bodies, Words(), TEMPLATES[0], lambda rng: DrawnLength(1, 44), "1"))


def one_of(*bodies: dict) -> Case:
    (found,) = read(*bodies)
    return found


def test_n_outputs_need_the_window_of_one():
    case = one_of({"prompt": "three more owls", "max_tokens": 900, "n": 8})
    assert (case.asked.sequences, case.prompt_tokens) == (8, 3 + CONSTANT)
    assert case.needed == 3 + CONSTANT + 900


def test_100_embeddings_need_the_window_of_the_largest():
    texts = [" ".join(["owl"] * (1 + n)) for n in range(100)]
    case = one_of({"input": texts})
    assert case.prompt_tokens == case.needed == 100 + CONSTANT
    assert case.whole_tokens == 5050 + 100 * CONSTANT
    assert (case.asked.sequences, case.asked.output_limit) == (100, 0)
    assert case.asked.measure.text_bytes == len(texts[-1])


def test_a_rerank_needs_the_window_of_its_largest_pair():
    documents = [" ".join(["owl"] * (1 + n)) for n in range(100)]
    case = one_of({"query": "which owl", "documents": documents})
    assert case.needed == 102 + CONSTANT


def test_several_prompts_are_read_one_by_one():
    bodies = [body["prompt"] for body in single_prompts({"prompt": ["a", "b"], "suffix": "c"})]
    assert bodies == [["a"], ["b"]]


@pytest.mark.parametrize("prompt", ["text", [1, 2, 3]])
def test_a_text_or_its_token_ids_are_one_prompt(prompt):
    assert len(list(single_prompts({"prompt": prompt}))) == 1


@pytest.mark.parametrize(
    ("body", "long"),
    [
        ({"prompt": "owl " * 150, "max_tokens": 900, "n": 8}, Verdict.RESERVED),
        ({"input": ["owl " * 500] * 100}, Verdict.RIGHT),
        ({"query": "owl", "documents": ["owl " * 500] * 100}, Verdict.RIGHT),
    ],
)
def test_a_request_of_many_sequences_is_routed_by_its_largest(body, long):
    rows = replay(read(body), make_rivals(Settings())[OURS](2048), 2048)
    assert [row.verdict for row in rows] == [Verdict.RIGHT]
    over = replay(read(body), make_rivals(Settings())[OURS](256), 256)
    assert [row.verdict for row in over] == [long]
