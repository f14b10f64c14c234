import json
import random

from hypothesis import given
from hypothesis import strategies as st

from extproc.local.traffic import (
    AZURE_2023,
    Source,
    TrafficApi,
    TrafficOptions,
    compose,
    draw_length,
    make_traffic,
    quantile,
    share,
)

_PROSE = Source("english", ("One fish. ", "Two fish. ", "Red fish, blue fish.\n"))
_RUSSIAN = Source("russian", ("Раз рыба. ", "Два рыба.\n"))
_OPTIONS = TrafficOptions(requests=400, seed=1, model="m", short=2048, long=16_384, rate=10.0)
_ITEMS = make_traffic((_PROSE, _RUSSIAN), _OPTIONS)


def _texts(body: dict[str, object]) -> list[str]:
    texts = [m["content"] for m in body.get("messages", [])]
    texts += [json.dumps(tool) for tool in body.get("tools", [])]
    return texts + _prompts(body)


def _prompts(body: dict[str, object]) -> list[str]:
    prompt = body.get("prompt", [])
    return [prompt] if isinstance(prompt, str) else prompt


def test_the_same_seed_gives_the_same_bytes():
    assert make_traffic((_PROSE, _RUSSIAN), _OPTIONS) == _ITEMS


def test_ids_are_unique_and_in_order():
    ids = [item.request_id for item in _ITEMS]
    assert ids == sorted(set(ids))


def test_arrivals_come_at_the_stated_rate():
    arrivals = [item.arrival_s for item in _ITEMS]
    assert arrivals == sorted(arrivals)
    assert 0.8 < len(arrivals) / arrivals[-1] / _OPTIONS.rate < 1.25


def test_text_bytes_are_those_of_the_body():
    for item in _ITEMS:
        texts = _texts(json.loads(item.body))
        assert item.text_bytes == sum(len(text.encode()) for text in texts)


def test_the_body_says_what_the_item_says():
    for item in _ITEMS:
        body = json.loads(item.body)
        assert body["stream"] is item.stream
        assert body.get("max_tokens") == item.max_tokens
        assert body.get("stream_options", {}).get("include_usage", False) is item.include_usage
        assert ("prompt" in body) is (item.api is TrafficApi.COMPLETION)
        assert body.get("n", 1) == item.n
        assert max(1, len(_prompts(body))) == item.prompts


def test_conversations_end_with_the_user():
    for item in _ITEMS:
        messages = json.loads(item.body).get("messages", [{"role": "user"}])
        assert messages[-1]["role"] == "user"


def test_every_shape_occurs():
    bodies = [json.loads(item.body) for item in _ITEMS]
    assert {item.kind for item in _ITEMS} == {"english", "russian"}
    assert {len(body.get("messages", ())) for body in bodies} == {0, 1, 2, 3, 5}
    assert any("tools" in body for body in bodies)
    assert any(item.max_tokens is None for item in _ITEMS)
    assert {(item.stream, item.include_usage) for item in _ITEMS} == {
        (False, False),
        (True, False),
        (True, True),
    }


def test_several_sequences_and_batches_occur():
    assert {item.n for item in _ITEMS} > {1}
    assert {item.prompts for item in _ITEMS} > {1}
    assert all(item.sequences == item.n * item.prompts for item in _ITEMS)


def test_no_prompt_of_a_batch_is_empty():
    assert all(text for item in _ITEMS for text in _prompts(json.loads(item.body)))


def test_several_sequences_state_a_limit_and_batches_are_not_streamed():
    assert all(item.max_tokens for item in _ITEMS if item.n > 1)
    assert not any(item.stream for item in _ITEMS if item.prompts > 1)


def test_the_stated_share_exceeds_the_short_pool():
    rng = random.Random(0)
    lengths = [draw_length(rng, _OPTIONS) for _ in range(10_000)]
    # Without a limit 150 tokens of output are expected.
    over = sum(length.prompt + (length.max_tokens or 150) > 2048 for length in lengths)
    assert abs(over / len(lengths) - _OPTIONS.exceeding) < 0.01


@given(st.integers(0, 2**32), st.integers(64, 65_536), st.integers(2, 16))
def test_no_length_exceeds_the_long_pool(seed, short, times):
    options = TrafficOptions(requests=1, seed=0, model="m", short=short, long=short * times)
    length = draw_length(random.Random(seed), options)
    assert length.prompt >= 1
    assert length.prompt + (length.max_tokens or 0) <= short * times


@given(st.integers(16, 16_384))
def test_share_and_quantile_are_inverse(tokens):
    assert abs(quantile(share(tokens), AZURE_2023) - tokens) < 1e-6 * tokens + 1


def test_the_azure_table_is_met():
    assert share(2048) == 0.77985
    assert share(10**6) == 1.0


@given(st.integers(0, 5000), st.integers(0, 2**32), st.sampled_from([_PROSE, _RUSSIAN]))
def test_composed_text_has_the_size_asked_for(size, seed, source):
    text = compose(random.Random(seed), source, size)
    # A character may be cut off at the end.
    assert max(1, size) - 1 <= len(text.encode()) <= max(1, size)
