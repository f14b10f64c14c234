"""Bodies of every API, and bodies that are of none."""

import base64
import gzip
import json
import random
import re
import unicodedata
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.request.fields import MAX_NODES
from extproc.request.prompt import Optional
from extproc.request.prompts import MAX_OBJECTS
from extproc.request.reader import (
    FREE_DECODED_BYTES,
    MAX_DECODED_BYTES,
    MAX_MODEL_CHARS,
    MAX_OUTPUTS,
    SAMPLE_BYTES,
    Endpoint,
    Image,
    Prompt,
    Request,
    Unreadable,
    UnreadableRequest,
    endpoint,
    read_request,
)
from extproc.tokens import MAX_TOKENS
from tests.support.local_stack import fetch

HI = {"role": "user", "content": "hi"}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "description": "tells it", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
ANTHROPIC_TOOL = {"name": "weather", "input_schema": PARAMETERS}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
UNSERVED = re.compile(
    "not a multimodal model|MultiModalParam is not supported|Scale-out endpoints are disabled"
    "|prompt_embeds must be provided"  # /invocations takes what has no messages for a completion
)
IMAGE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
SQUARE = "data:image/gif;base64," + base64.b64encode(b"GIF89a\x18\1\x18\1\x80\0\0").decode()
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def seen(*texts: str, optional: Any = (), **counts: Any) -> dict[str, Any]:
    counted = {"texts": texts, "messages": 1, "tools": 0, "token_ids": 0}
    return counted | {"optional": dict(optional)} | counts


# Path, body, and what is to be found in it. A vLLM of a text model takes them all, but for those
# of media and of pooling models.
SHAPES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [HI]}, seen("hi")),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "be brief"}]}, HI]},
        seen("be brief", "hi", messages=2),
    ),
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "user", "name": "bob", "content": "hi"},
                {"role": "assistant", "reasoning_content": "hm", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "1", "content": "sun"},
            ],
            "tools": [TOOL],
            "tool_choice": "none",
        },
        seen(
            *("bob", "hi", "hm", "weather", "{}", "sun"),
            messages=3,
            tools=1,
            optional={Optional.UNUSED_TOOLS: compact(TOOL)},
        ),
    ),
    (
        "/v1/chat/completions",
        {
            "messages": [HI],
            "functions": [FUNCTION],
            "documents": [{"title": "a", "text": "b"}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": PARAMETERS},
            },
        },
        seen(
            "hi",
            compact(FUNCTION),
            tools=1,
            optional={
                Optional.DOCUMENTS: '{"title":"a","text":"b"}',
                Optional.SCHEMA: compact({"name": "x", "schema": PARAMETERS}),
            },
        ),
    ),
    # Constraints that no template sees: vLLM gives them to the grammar alone.
    (
        "/v1/chat/completions",
        {"messages": [HI], "structured_outputs": {"json": PARAMETERS}},
        seen("hi"),
    ),
    ("/v1/chat/completions", {"messages": [HI], "guided_json": PARAMETERS}, seen("hi")),
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "what?"}, AUDIO]},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]},
                {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]},
            ]
        },
        seen("what?", messages=3, images=(Image(width=1, height=1),), audios=1, videos=1),
    ),
    ("/v1/chat/completions/batch", {"messages": [[HI], [HI, HI]]}, seen(*["hi"] * 3, messages=3)),
    ("/v1/completions", {"prompt": "once"}, seen("once")),
    ("/v1/completions", {"prompt": ["once", "upon"]}, seen("once", "upon", messages=2)),
    ("/v1/completions", {"prompt": [1, 2, 3]}, seen(token_ids=3)),
    ("/v1/completions", {"prompt": [[1, 2], [3]]}, seen(token_ids=3, messages=2)),
    ("/v1/completions", {"prompt": "a", "suffix": None}, seen("a")),
    (
        "/v1/responses",
        {"input": "hi", "instructions": "be brief"},
        seen("be brief", "hi", messages=2),
    ),
    (
        "/v1/responses",
        {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {
                    "type": "reasoning",
                    "summary": [],
                    "content": [{"type": "reasoning_text", "text": "hm"}],
                },
                {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "sun"},
            ],
            "tools": [{"type": "function", **FUNCTION, "strict": False}],
            "tool_choice": "none",
        },
        seen(
            *("hi", "hm", "weather", "{}", "sun"),
            messages=4,
            tools=1,
            optional={
                Optional.UNUSED_TOOLS: compact({"type": "function", **FUNCTION, "strict": False})
            },
        ),
    ),
    (
        "/v1/responses",
        {
            "input": "hi",
            "text": {"format": {"type": "json_schema", "name": "x", "schema": PARAMETERS}},
        },
        seen("hi", optional={Optional.SCHEMA: compact(PARAMETERS)}),
    ),
    ("/v1/messages", {"messages": [HI], "max_tokens": 1}, seen("hi")),
    (
        "/v1/messages",
        {
            "system": [{"type": "text", "text": "be brief"}],
            "messages": [
                HI,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                        {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "x"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "1",
                            "content": [{"type": "text", "text": "sun"}],
                        }
                    ],
                },
            ],
            "tools": [ANTHROPIC_TOOL],
            "tool_choice": {"type": "none"},
            "max_tokens": 1,
        },
        seen(
            *("be brief", "hi", "hm", "weather", '{"city":"x"}', "sun"),
            messages=4,
            tools=1,
            optional={Optional.UNUSED_TOOLS: compact(ANTHROPIC_TOOL)},
        ),
    ),
    (
        "/inference/v1/generate",
        {"token_ids": [1, 2, 3], "sampling_params": {"max_tokens": 5}},
        seen(token_ids=3),
    ),
    ("/invocations", {"messages": [HI], "tools": [TOOL]}, seen("hi", compact(TOOL), tools=1)),
    ("/invocations", {"prompt": ["once", "upon"]}, seen("once", "upon", messages=2)),
    ("/invocations", {"input": "once"}, seen("once")),
    ("/invocations", {"text_1": "a", "text_2": "b"}, seen("a", "b")),
    (
        "/generative_scoring",
        {"query": "a", "items": ["b", "c"], "label_token_ids": [1, 2]},
        seen("a", "b", "c", messages=2),
    ),
    ("/v1/embeddings", {"input": "once"}, seen("once")),
    ("/v1/embeddings", {"input": ["once", "upon"]}, seen("once", "upon", messages=2)),
    ("/v1/embeddings", {"input": [[1, 2], [3]]}, seen(token_ids=3, messages=2)),
    ("/v1/embeddings", {"messages": [HI]}, seen("hi")),
    ("/v1/embeddings", {"input": [HI]}, seen("hi")),
    ("/v2/embed", {"texts": ["a", "b"], "embedding_types": ["float"]}, seen("a", "b", messages=2)),
    (
        "/v2/embed",
        {"inputs": [{"content": [{"type": "text", "text": "a"}]}], "embedding_types": ["float"]},
        seen("a"),
    ),
    ("/v2/embed", {"images": [IMAGE]}, seen(images=(Image(width=1, height=1),))),
    ("/pooling", {"input": "once"}, seen("once")),
    ("/classify", {"messages": [HI]}, seen("hi")),
    ("/score", {"text_1": "a", "text_2": ["b", "c"]}, seen("a", "b", "c", messages=2)),
    ("/v1/score", {"queries": "a", "documents": ["b"]}, seen("a", "b")),
    ("/score", {"data_1": ["a", "b"], "data_2": ["c", "d"]}, seen(*"abcd", messages=2)),
    (
        "/v1/rerank",
        {"query": "a", "documents": ["b", {"content": [{"type": "text", "text": "c"}]}]},
        seen("a", "b", "c", messages=2),
    ),
]
each_shape = pytest.mark.parametrize(("path", "body", "expected"), SHAPES)
each_endpoint = pytest.mark.parametrize("kind", Endpoint)


def read(body: object, kind: Endpoint = Endpoint.CHAT) -> Request:
    return read_request(kind, json.dumps(body).encode())


def whole(request: Request) -> Prompt:
    """All prompts of a request together, with what they share in front and once for each."""
    prompts = request.prompts
    own, shared, count = prompts.own, prompts.shared, prompts.count
    if own is None or shared is None:
        return prompts.largest
    optional = {
        kind: text._replace(text_bytes=count * text.text_bytes)
        for kind, text in shared.optional.items()
    }
    return replace(
        own,
        sample=b"\n".join(filter(None, (shared.sample, own.sample))),
        text_bytes=own.text_bytes + count * shared.text_bytes,
        token_ids=own.token_ids + count * shared.token_ids,
        messages=own.messages + count * shared.messages,
        tools=own.tools + count * shared.tools,
        optional={**own.optional, **optional},
    )


def chat(**fields: object) -> Request:
    return read({"messages": [HI], **fields})


def reason(body: bytes, encoding: str = "", **settings: Any) -> Unreadable:
    with pytest.raises(UnreadableRequest) as caught:
        read_request(Endpoint.CHAT, body, encoding, **settings)
    return caught.value.reason


@each_shape
def test_a_shape_is_read(path, body, expected):
    kind = endpoint(path)
    assert kind is not None
    found = whole(read(body, kind))
    assert found.sample.decode().split("\n") == list(expected["texts"] or [""])
    optional = {kind: text.sample.decode() for kind, text in found.optional.items()}
    assert optional == expected["optional"]
    for name, value in expected.items():
        assert name in {"texts", "optional"} or getattr(found, name) == value


@pytest.mark.slow
@pytest.mark.timeout(400)
@each_shape
def test_a_real_vllm_takes_the_shape(path, body, expected, vllm_urls):
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    answer = fetch(f"{vllm_urls[0]}{path}", {"model": "tiny-qwen", limit: 1, **body})
    if answer.status != 200:
        assert answer.status in {404, 501} or UNSERVED.search(answer.body.decode()), answer.body
        pytest.skip(f"this model does not serve it: {answer.body.decode()}")


def test_the_model_is_what_the_client_wrote():
    assert chat(model="m").model == "m"


@pytest.mark.parametrize("model", [None, 5, ["m"]])
def test_a_model_that_is_no_string_is_none(model):
    assert chat(model=model).model == ""


def test_a_long_model_name_ends_in_a_digest_of_all_of_it():
    one, other = (chat(model="m" * 1000 + end).model for end in "ab")
    assert len(one) == len(other) == MAX_MODEL_CHARS
    assert one != other
    assert chat(model="m" * MAX_MODEL_CHARS).model == "m" * MAX_MODEL_CHARS


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 100}, 100),
        ({"max_completion_tokens": 100, "max_tokens": 5}, 100),
        ({"max_completion_tokens": None, "max_tokens": 5}, 5),
        ({"max_output_tokens": 100}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": "100"}, 100),
        ({"max_tokens": " +1_00.0 "}, 100),
        ({"max_tokens": 100.0}, 100),
        ({"max_tokens": True}, 1),
        ({"max_tokens": 100.5}, None),
        ({"max_tokens": "many"}, None),
        ({"max_tokens": "nan"}, None),
        ({"max_tokens": "inf"}, None),
        ({"max_tokens": [100]}, None),
        ({"max_tokens": 0}, 1),
        ({"max_tokens": -1}, None),
        ({"max_tokens": -(10**400)}, None),
        ({"max_tokens": 2**31}, MAX_TOKENS),
        ({"max_tokens": 10**400}, MAX_TOKENS),
        ({"max_tokens": 1e30}, MAX_TOKENS),
    ],
)
def test_the_limit_of_a_chat(fields, limit):
    assert chat(**fields).max_tokens == limit


@pytest.mark.parametrize(
    ("stated", "floor"),
    [({}, 0), ({"min_tokens": 20_000}, 20_000), ({"min_tokens": "7"}, 7), ({"min_tokens": -1}, 0)],
)
@pytest.mark.parametrize("kind", [Endpoint.CHAT, Endpoint.COMPLETION])
def test_the_least_output_is_read(kind, stated, floor):
    assert read(stated, kind).min_tokens == floor


@pytest.mark.parametrize("kind", [Endpoint.OTHER_CHAT, Endpoint.RESPONSES, Endpoint.MESSAGES])
def test_an_api_without_a_least_output_ignores_one(kind):
    assert read({"min_tokens": 20_000, "": 20_000}, kind).min_tokens == 0


@pytest.mark.parametrize("fields", [{}, {"max_tokens": None}])
def test_a_completion_without_a_limit_ends_after_16_tokens(fields):
    assert read({"prompt": "once", **fields}, Endpoint.COMPLETION).max_tokens == 16


def test_token_ids_have_their_limits_among_the_sampling_parameters():
    options = {"max_tokens": 5, "min_tokens": 4, "n": 3}
    request = read({"token_ids": [1], "sampling_params": options, "n": 9}, Endpoint.GENERATE)
    assert (request.max_tokens, request.min_tokens, request.outputs) == (5, 4, 3)


@pytest.mark.parametrize(
    ("kind", "fields", "truncates"),
    [
        (Endpoint.EMBEDDING, {"input": "a"}, False),
        (Endpoint.EMBEDDING, {"input": "a", "truncate_prompt_tokens": -1}, True),
        (Endpoint.EMBEDDING, {"texts": ["a"]}, True),
        (Endpoint.EMBEDDING, {"texts": ["a"], "truncate": "NONE"}, False),
        (Endpoint.SCORE, {"query": "a", "documents": ["b"], "max_tokens_per_doc": 0}, False),
        (Endpoint.SCORE, {"query": "a", "documents": ["b"], "max_tokens_per_doc": 9}, True),
        (Endpoint.CHAT, {"messages": [HI]}, False),
    ],
)
def test_a_prompt_that_the_pool_may_cut_is_known(kind, fields, truncates):
    assert read(fields, kind).truncates is truncates


@pytest.mark.parametrize(
    ("kind", "field"),
    [(Endpoint.RESPONSES, "max_output_tokens"), (Endpoint.MESSAGES, "max_tokens")],
)
def test_each_api_has_its_own_limit(kind, field):
    every = {"max_completion_tokens": 1, "max_tokens": 1, "max_output_tokens": 1}
    assert read({**every, field: 7}, kind).max_tokens == 7


@pytest.mark.parametrize(
    ("fields", "sequences"),
    [
        ({}, 1),
        ({"n": None}, 1),
        ({"n": 3}, 3),
        ({"n": "3"}, 3),
        ({"best_of": 4}, 4),
        ({"n": 3, "best_of": 2}, 3),
        ({"n": 0}, 1),
        ({"n": -5}, 1),
        ({"n": {}}, 1),
        ({"n": 10**12}, MAX_OUTPUTS),
    ],
)
def test_sequences_are_the_larger_of_n_and_best_of(fields, sequences):
    assert chat(**fields).sequences == sequences


@pytest.mark.parametrize("kind", [Endpoint.RESPONSES, Endpoint.MESSAGES, Endpoint.EMBEDDING])
def test_an_api_without_n_makes_one_sequence(kind):
    assert read({"n": 5}, kind).sequences == 1


@pytest.mark.parametrize("kind", [Endpoint.CHAT, Endpoint.COMPLETION])
def test_a_stream_without_options_leaves_usage_unstated(kind):
    assert read({"stream": True}, kind).usage_unstated


@pytest.mark.parametrize("options", [{"include_usage": False}, {"include_usage": True}, {}, None])
def test_options_of_any_kind_state_it(options):
    assert not chat(stream=True, stream_options=options).usage_unstated


@pytest.mark.parametrize("value", [False, None, 1, "true"])
def test_what_is_not_plainly_a_stream_leaves_nothing_unstated(value):
    assert not chat(stream=value).usage_unstated


@pytest.mark.parametrize("kind", [Endpoint.RESPONSES, Endpoint.MESSAGES, Endpoint.OTHER_CHAT])
def test_other_apis_know_no_stream_options(kind):
    assert not read({"stream": True}, kind).usage_unstated


@each_endpoint
def test_what_generates_is_known_by_the_endpoint(kind):
    quiet = {Endpoint.EMBEDDING, Endpoint.SCORE}
    assert read({}, kind).generates == (kind not in quiet)


@given(st.lists(st.text()))
def test_texts_count_in_utf8_bytes(texts):
    request = read({"messages": [{"role": "user", "content": text} for text in texts]})
    assert whole(request).text_bytes == len("".join(texts).encode())
    assert whole(request).messages == len(texts)


@given(st.text())
def test_escapes_do_not_change_the_count(text):
    body = {"messages": [{"content": text}]}
    escaped, plain = (json.dumps(body, ensure_ascii=flag).encode() for flag in (True, False))
    assert whole(read_request(Endpoint.CHAT, escaped)) == whole(read_request(Endpoint.CHAT, plain))


def test_a_megabyte_of_base64_is_no_text():
    data = base64.b64encode(b"\x89PNG" * 250_000).decode()
    url = {"url": f"data:image/png;base64,{data}"}
    part = {"type": "image_url", "image_url": url}
    assert whole(read({"messages": [{"content": [part]}]})).text_bytes == 0


def test_a_long_text_has_a_bounded_sample():
    found = whole(read({"messages": [{"content": "word " * 100_000}]}))
    assert found.text_bytes == 500_000
    assert SAMPLE_BYTES * 0.98 < len(found.sample) <= SAMPLE_BYTES


def test_what_can_be_counted_is_counted_whatever_is_wrong_beside_it():
    wrong = [None, 5, {"content": 5}, {"content": {"text": "b"}}, {"tool_calls": 5, "name": []}]
    request = chat(messages=[HI, *wrong], tools="x", stop=1e300, n={}, stream=[])
    assert whole(request).sample == b"hi\nb"


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (Endpoint.RESPONSES, "previous_response_id"),
        (Endpoint.COMPLETION, "prompt_embeds"),
        (Endpoint.CHAT, "truncate_prompt_tokens"),
    ],
)
def test_a_prompt_that_is_not_what_the_body_holds_is_unreadable(kind, field):
    with pytest.raises(UnreadableRequest, match="shape"):
        read({field: "1"}, kind)
    assert read({field: None}, kind)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", Unreadable.EMPTY),
        (b" \r\n\t", Unreadable.EMPTY),
        (b"[]", Unreadable.SHAPE),
        (b'"hi"', Unreadable.SHAPE),
        (b"null", Unreadable.SHAPE),
        (b'{"messages": [', Unreadable.JSON),
        (b'{"a": NaN}', Unreadable.JSON),
        (b'{"messages": ["\xff"]}', Unreadable.JSON),
        (b'{"messages": ["\\ude00"]}', Unreadable.JSON),
        (b"{} {}", Unreadable.JSON),
        (b"--x\r\ncontent-disposition: form-data", Unreadable.JSON),
        ("{}".encode("utf-16")[:-1], Unreadable.JSON),
        (b'{"model": "\\ud83d"}', Unreadable.JSON),
        (b'{"a": ' + b"[" * 100_000, Unreadable.DEPTH),
        (b'{"messages": [' + b"[1]," * MAX_NODES + b"[1]]}", Unreadable.TOO_LARGE),
        (b'{"messages": [' + b'"a",' * MAX_NODES + b'"a"]}', Unreadable.TOO_LARGE),
        (b'{"tools": [' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"]}", Unreadable.DEPTH),
    ],
)
def test_a_body_that_cannot_be_read_says_why(body, expected):
    assert reason(body) is expected


def test_a_body_of_more_bytes_than_permitted_is_too_large():
    assert reason(b"{}" + b" " * 100, max_bytes=101) is Unreadable.TOO_LARGE
    assert read_request(Endpoint.CHAT, b"{}" + b" " * 100, max_bytes=102)


def test_a_bomb_is_too_large():
    bomb = gzip.compress(b'{"messages": "' + b"a" * 10_000_000)
    assert reason(bomb, "gzip", max_bytes=1_000_000) is Unreadable.TOO_LARGE


def test_what_is_compressed_is_read_up_to_a_megabyte():
    noise = random.Random(0).randbytes(MAX_DECODED_BYTES // 8).hex()  # compresses to half
    body = json.dumps({"x": noise}).encode().ljust(MAX_DECODED_BYTES)
    assert read_request(Endpoint.CHAT, gzip.compress(body), "gzip")
    assert reason(gzip.compress(body + b" "), "gzip") is Unreadable.TOO_LARGE


def test_what_is_compressed_is_read_up_to_64_kib_and_64_times_its_size():
    body = json.dumps({"x": random.Random(0).randbytes(500).hex()}).encode()
    fill = FREE_DECODED_BYTES + 64 * len(gzip.compress(body.ljust(100_000)))
    packed = gzip.compress(body.ljust(fill - 2000))
    assert read_request(Endpoint.CHAT, packed, "gzip")
    assert reason(gzip.compress(body.ljust(fill + 8000)), "gzip") is Unreadable.TOO_LARGE


def test_a_compressed_body_of_more_than_a_megabyte_is_not_decoded():
    frames = gzip.compress(b"") * (MAX_DECODED_BYTES // len(gzip.compress(b"")) + 1)
    assert reason(frames, "gzip") is Unreadable.TOO_LARGE


def test_a_field_that_is_not_read_may_hold_anything():
    body = b'{"model": "m", "x": [' + b"[1]," * (2 * MAX_NODES) + b"1e999]}"
    assert read_request(Endpoint.CHAT, body).model == "m"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_body_in_any_encoding_of_json_is_read(encoding):
    body = json.dumps({"messages": [{"content": "héllo"}], "stream": True}, ensure_ascii=False)
    request = read_request(Endpoint.CHAT, body.encode(encoding))
    assert whole(request).sample == "héllo".encode()


def test_every_image_of_a_batch_is_counted():
    images = ["data:image/gif;base64,R0lGODlhAQABAAAAACw="] * 300
    prompts = read_request(Endpoint.EMBEDDING, json.dumps({"images": images}).encode()).prompts
    assert prompts.own is not None
    assert (len(prompts.own.images), len(prompts.largest.images)) == (300, 1)


def test_a_batch_of_a_million_token_ids_is_counted():
    body = json.dumps({"input": [[7] * 1100, [123456] * 1000] * 500}).encode()
    request = read_request(Endpoint.EMBEDDING, body)
    assert request.prompts.count == 1000
    assert request.prompts.largest.token_ids == 1100
    assert whole(request).token_ids == 500 * 2100


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "identity, gzip"])
def test_an_encoded_body_is_read(encoding):
    body = gzip.compress(json.dumps({"messages": [HI]}).encode())
    assert whole(read_request(Endpoint.CHAT, body, encoding)).sample == b"hi"


def test_identity_is_no_encoding():
    assert read_request(Endpoint.CHAT, b'{"model": "m"}', "identity").model == "m"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"{}", "gzip"),
        (b"{}", "compress"),
        (gzip.compress(b'{"model": "m"}', mtime=0)[:-1], "gzip"),
        (gzip.compress(b"{}", mtime=0), "br"),
    ],
)
def test_a_body_that_is_not_of_its_encoding_is_unreadable(body, encoding):
    assert reason(body, encoding) is Unreadable.ENCODING


def test_an_empty_body_is_empty_in_any_encoding():
    assert reason(b"", "gzip") is Unreadable.EMPTY


def test_eight_thousand_messages_are_read():
    assert whole(read({"messages": [HI] * 8_000})).text_bytes == 16_000


def test_a_conversation_as_deep_as_json_may_be_is_read():
    body = b'{"messages":' + b'[{"content":' * 300 + b'"deep"' + b"}]" * 300 + b"}"
    assert whole(read_request(Endpoint.CHAT, body)).sample == b"deep"


NAMES = """
    messages content role name text type tools functions function tool_calls arguments input
    prompt output summary image_url url source data input_audio video_url document documents
    response_format format schema json_schema system instructions model max_tokens n best_of
    stream stream_options include_usage query text_1 text_2 items inputs images reasoning
    reasoning_content suffix max_completion_tokens max_output_tokens min_tokens
"""
names = st.sampled_from(NAMES.split())
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e99, 1e99) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(names | st.text(), inner),
    max_leaves=20,
)
bodies = st.dictionaries(names, anything)


@settings(max_examples=200)
@given(kind=st.sampled_from(Endpoint), body=bodies)
def test_any_object_is_read(kind, body):
    request = read(body, kind)
    largest = request.prompts.largest
    assert len(largest.sample) <= SAMPLE_BYTES
    assert largest.text_bytes <= len(json.dumps(body).encode())
    assert request.sequences >= 1
    assert request.max_tokens is None or 1 <= request.max_tokens <= MAX_TOKENS
    assert 0 <= request.min_tokens <= MAX_TOKENS
    assert min(largest.messages, largest.tools, largest.token_ids) >= 0


@given(body=st.binary(), encoding=st.sampled_from(["", "gzip", "br", "zstd", "deflate", "x"]))
def test_any_bytes_are_unreadable(body, encoding):
    assert reason(body, encoding) in Unreadable


@given(body=bodies, cut=st.integers(1, 20))
def test_a_truncated_body_is_unreadable(body, cut):
    assert reason(json.dumps(body).encode()[:-cut]) in {Unreadable.JSON, Unreadable.EMPTY}


@pytest.mark.parametrize("fields", [{"n": 2}, {"prompt": ["a", "b"]}, {"prompt": [[1], [2]]}])
def test_a_stream_of_several_answers_does_not_state_its_usage_either(fields):
    assert read({"stream": True, "prompt": "a"} | fields, Endpoint.COMPLETION).usage_unstated


@pytest.mark.parametrize("prompt", ["a", ["a"], [1, 2], [[1, 2]]])
def test_a_single_prompt_may_be_written_in_any_way(prompt):
    body = {"stream": True, "prompt": prompt}
    assert read(body, Endpoint.COMPLETION).usage_unstated


def test_sixteen_thousand_prompts_of_token_ids_are_told_apart():
    assert read({"input": [[1]] * 16_000}, Endpoint.EMBEDDING).prompts.count == 16_000


@pytest.mark.parametrize(("prompts", "count"), [(MAX_OBJECTS, MAX_OBJECTS), (MAX_OBJECTS + 1, 1)])
@pytest.mark.parametrize(("kind", "field"), [(Endpoint.EMBEDDING, "input")])
def test_objects_are_told_apart_up_to_a_smaller_bound(kind, field, prompts, count):
    assert read({field: [{"text": "a"}] * prompts}, kind).prompts.count == count


@pytest.mark.parametrize(("number", "count"), [(MAX_OBJECTS, MAX_OBJECTS), (MAX_OBJECTS + 1, 1)])
def test_conversations_are_told_apart_up_to_the_same_bound(number, count):
    assert read({"messages": [[HI]] * number}, Endpoint.OTHER_CHAT).prompts.count == count


def test_texts_are_told_apart_beyond_that_bound():
    assert read({"input": ["a"] * 2000}, Endpoint.EMBEDDING).prompts.count == 2000


def test_vllm_makes_at_most_16384_sequences_of_a_prompt():
    assert chat(n=16_385).outputs == chat(n=16_384).outputs == 16_384
    assert chat(n=16_383).outputs == 16_383


@pytest.mark.parametrize(
    ("entries", "largest"),
    [
        ([{"text": "a" * 300}, {"text": "b" * 200}], 300),
        (["a" * 300, "é" * 200], 400),
        ([{"image_url": "x"}, {"text": "b" * 6000}], 0),
        ([{"image_url": "x"}, {"text": "b" * 6500}], 6500),
        ([AUDIO, {"text": "b" * 6000}], 0),
        ([AUDIO, {"text": "b" * 6500}], 6500),
        (["a" * 300, "7" * 90], 90),
        ([{"image_url": SQUARE}, {"text": "b" * 440}], 0),  # 100 tokens of either
        ([{"image_url": SQUARE}, {"text": "b" * 470}], 470),
    ],
)
def test_the_largest_prompt_is_that_of_the_most_tokens_by_a_rough_count(entries, largest):
    assert read({"input": entries}, Endpoint.EMBEDDING).prompts.largest.text_bytes == largest


def test_token_ids_and_texts_are_compared_at_four_bytes_for_an_id():
    entries = [[1] * 100, [2] * 101]
    assert read({"prompt": entries}, Endpoint.COMPLETION).prompts.largest.token_ids == 101


def test_what_prompts_share_counts_once_for_each():
    shared = {"messages": [[HI], [HI, HI]], "tools": [TOOL], "documents": ["d"]}
    prompts = read(shared, Endpoint.OTHER_CHAT).prompts
    assert (prompts.largest.tools, prompts.shared.tools, prompts.own.tools) == (1, 1, 0)
    assert (prompts.own.text_bytes, prompts.shared.text_bytes) == (3 * 2, len(compact(TOOL)))
    assert prompts.shared.optional[Optional.DOCUMENTS].text_bytes == 1


def test_prompts_that_share_nothing_share_no_message():
    prompts = read({"prompt": ["a", "b"]}, Endpoint.COMPLETION).prompts
    assert (prompts.own.messages, prompts.shared.messages) == (2, 0)


def test_the_sixteen_roughly_largest_prompts_are_measured():
    entries = ["a" * n for n in range(10, 30)]
    candidates = read({"input": entries}, Endpoint.EMBEDDING).prompts.candidates
    assert [each.text_bytes for each in candidates] == list(range(29, 13, -1))


def test_each_pair_has_the_largest_entry_of_the_shorter_list():
    body = {"text_1": ["a", "bb"], "text_2": ["x" * 9, "y" * 7, "z" * 8]}
    candidates = read(body, Endpoint.SCORE).prompts.candidates
    assert [each.text_bytes for each in candidates] == [11, 10, 9]


@pytest.mark.parametrize(
    ("value", "count", "messages"), [([HI] * 3, 1, 3), ([[HI] * 3, [HI]], 2, 3), ([[HI]], 1, 1)]
)
def test_an_embedding_of_messages_is_one_prompt_for_each_conversation(value, count, messages):
    prompts = read({"input": value}, Endpoint.EMBEDDING).prompts
    assert (prompts.count, prompts.largest.messages) == (count, messages)


def test_an_instruction_counts_by_either_name():
    body = {"query": "a", "documents": ["b"]}
    named, argued = (
        whole(read(body | each, Endpoint.SCORE)).text_bytes
        for each in ({"instruction": "find"}, {"chat_template_kwargs": {"instruction": "find"}})
    )
    assert named == argued == 6


def test_embeddings_within_a_conversation_make_it_unreadable():
    part = {"type": "prompt_embeds", "data": "AAAA"}
    body = json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode()
    assert reason(body) is Unreadable.SHAPE


@pytest.mark.parametrize(
    ("fields", "truncates"),
    [({}, False), ({"truncation": "disabled"}, False), ({"truncation": "auto"}, True)],
)
def test_a_response_may_have_its_prompt_cut(fields, truncates):
    assert read({"input": "a", **fields}, Endpoint.RESPONSES).truncates is truncates


def test_tools_may_be_rendered_with_spaces_and_lines():
    plain, tooled = chat(), chat(tools=[TOOL])
    size = len(json.dumps({"messages": [HI], "tools": [TOOL]}))
    assert tooled.token_bound == 3 * size + 512 + 32 * 2
    assert plain.token_bound == len(json.dumps({"messages": [HI]})) + 512 + 32


@pytest.mark.parametrize(("size", "growth"), [(1 << 16, 1), ((1 << 16) + 1, 11)])
def test_a_large_body_is_not_looked_through_for_such_text(size, growth):
    frame = len('{"messages":[{"role":"user","content":""}]}')
    text = b'{"messages":[{"role":"user","content":"%s"}]}' % (b"a" * (size - frame))
    assert read_request(Endpoint.CHAT, text).token_bound == growth * size + 512 + 32


@pytest.mark.parametrize("normal", ["NFC", "NFD", "NFKC", "NFKD"])
def test_tokenizers_that_normalise_make_no_text_longer_than_is_taken_into_account(normal):
    texts = map(chr, {*range(0x80, 0x110000)} - {*range(0xD800, 0xE000)})
    grown = (
        len(unicodedata.normalize(normal, text).encode()) / len(text.encode()) for text in texts
    )
    assert max(grown) <= 11


def test_tokenizers_that_compose_make_no_text_longer_than_its_escapes():
    for text in map(chr, {*range(0x80, 0x110000)} - {*range(0xD800, 0xE000)}):
        composed = unicodedata.normalize("NFC", text).encode()
        assert len(composed) <= len(json.dumps(text)) - len('""')


@pytest.mark.parametrize(("escaped", "growth"), [(True, 1), (False, 11)])
@pytest.mark.parametrize("tools", [{}, {"tools": [TOOL]}], ids=["chat", "tooled"])
def test_a_text_beyond_ascii_may_have_eleven_tokens_for_a_byte(tools, escaped, growth):
    body = {"messages": [{"role": "user", "content": "\ufdfa"}], **tools}
    text = json.dumps(body, ensure_ascii=escaped).encode()
    most = growth * len(text) * (3 if tools else 1)
    assert read_request(Endpoint.CHAT, text).token_bound == most + 512 + 32 * (1 + len(tools))


def test_a_template_of_the_requests_own_has_text_that_may_be_of_the_prompt():
    [part] = chat(chat_template="Speak like a pirate.").prompts.parts
    assert part.optional[Optional.TEMPLATE_ARGUMENTS].text_bytes == len("Speak like a pirate.")


def test_a_chat_stores_no_response():
    assert not chat(store=True).stored
    assert not chat().stored


def test_no_bound_is_known_for_a_template_of_the_requests_own():
    assert chat(chat_template="{{ messages }}" * 9).token_bound is None


def test_all_fields_together_have_one_bound():
    fields = ("text_1", "text_2", "data_1", "data_2", "query", "queries", "documents", "items")
    body = {field: [["a"] * 7] * 1000 for field in fields}
    with pytest.raises(UnreadableRequest, match="too_large"):
        read(body, Endpoint.SCORE)


@pytest.mark.parametrize("depth", range(900, 1010, 3))
@pytest.mark.parametrize("form", [b'{"messages":%s%s}', b'{"tools":[%s1%s]}'])
def test_no_depth_gets_past_the_bound(form, depth):
    opening, closing = (b"[", b"]") if b"messages" in form else (b'{"a":', b"}")
    with suppress(UnreadableRequest):
        read_request(Endpoint.CHAT, form % (opening * depth, closing * depth))
