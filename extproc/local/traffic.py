"""Generates the demo's traffic from a seed: bodies and arrival times.

Invariant: the same options and sources give the same requests, byte for byte.
"""

import enum
import json
import math
import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

# CDF of total tokens (prompt and output) in the Azure LLM inference trace 2023: (tokens, share).
AZURE_2023 = (
    (16, 0.0), (64, 0.00837), (128, 0.02817), (256, 0.06759), (512, 0.28863), (768, 0.36427),
    (1024, 0.40447), (1536, 0.65687), (2048, 0.77985), (3072, 0.86865), (4096, 0.89821),
    (6144, 0.97580), (8192, 0.99996), (16384, 1.0),
)  # fmt: skip

# Approximate UTF-8 bytes per token; they only turn a drawn number of tokens into text.
_BYTES_PER_TOKEN = MappingProxyType(
    {"english": 4.4, "code": 4.1, "json": 2.3, "chinese": 4.1, "russian": 5.9,
     "japanese": 4.1, "arabic": 4.9}
)  # fmt: skip
_WEIGHTS = MappingProxyType(
    {"english": 35, "code": 25, "json": 12, "chinese": 10, "russian": 10, "japanese": 4,
     "arabic": 4}
)  # fmt: skip
_OTHER_BYTES_PER_TOKEN = 4.0
_OTHER_WEIGHT = 10

_LIMITS = (32, 64, 128, 256, 512, 1024)
_USUAL_OUTPUT = 150
_SEVERAL = 0.03  # share of chats with n > 1
_BATCHES = 0.2  # share of completions with several prompts
_TOOL_SUBJECTS = ("weather", "stock_price", "calendar_entry", "train_departure")


class TrafficApi(enum.Enum):
    """The path that a request is sent to."""

    CHAT = "/v1/chat/completions"
    COMPLETION = "/v1/completions"


@dataclass(frozen=True, slots=True)
class Source:
    """Text of one kind, split into consecutive pieces."""

    kind: str
    pieces: tuple[str, ...]

    @property
    def bytes_per_token(self) -> float:
        """Approximate UTF-8 bytes per token."""
        return _BYTES_PER_TOKEN.get(self.kind, _OTHER_BYTES_PER_TOKEN)

    @property
    def weight(self) -> int:
        """Relative frequency among all sources."""
        return _WEIGHTS.get(self.kind, _OTHER_WEIGHT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficOptions:
    """What traffic to generate.

    short, long: max_model_len of the smallest and the largest pool, in tokens.
    exceeding: share of requests whose prompt and output together exceed `short`.
    rate: arrivals per second (Poisson); 0 if all arrive at once and the sender limits them.
    """

    requests: int
    seed: int
    model: str
    short: int
    long: int
    exceeding: float = 0.12
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Item:
    """One request to send.

    text_bytes: UTF-8 bytes of all prompts and tool definitions. max_tokens: of one sequence.
    prompts: 1 unless it is a batch; the pool generates `n` sequences for each of them.
    """

    request_id: str
    kind: str
    api: TrafficApi
    body: bytes
    text_bytes: int
    max_tokens: int | None
    stream: bool
    include_usage: bool
    arrival_s: float
    prompts: int = 1
    n: int = 1

    @property
    def sequences(self) -> int:
        """Sequences that the pool generates."""
        return self.prompts * self.n


@dataclass(frozen=True, slots=True)
class ItemLength:
    """Tokens of a request; `max_tokens` is None if it states no limit."""

    prompt: int
    max_tokens: int | None


def make_traffic(sources: Sequence[Source], options: TrafficOptions) -> tuple[Item, ...]:
    """Return the requests in the order of their arrival."""
    rng = random.Random(options.seed)  # noqa: S311 - reproducible, not secret
    weights = [source.weight for source in sources]
    items = []
    arrival_s = 0.0
    for number in range(options.requests):
        source = rng.choices(sources, weights)[0]
        arrival_s += rng.expovariate(options.rate) if options.rate else 0.0
        items.append(_item(rng, source, options, number, arrival_s))
    return tuple(items)


def _item(
    rng: random.Random, source: Source, options: TrafficOptions, number: int, arrival_s: float
) -> Item:
    length = draw_length(rng, options)
    text = compose(rng, source, int(length.prompt * source.bytes_per_token))
    api = TrafficApi.COMPLETION if rng.random() < 0.1 else TrafficApi.CHAT
    content, text_bytes = _content(rng, api, source, text)
    prompts = _count_prompts(content)
    stream = prompts == 1 and rng.random() < 0.5
    include_usage = stream and rng.random() < 0.5
    n = _draw_n(rng, api, length)
    body = {"model": options.model, **content, **_limits(length, n), "stream": stream}
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    # Some clients escape non-ASCII characters, others do not.
    ascii_only = rng.random() < 0.5
    return Item(
        request_id=f"dualpool-{options.seed}-{number:05d}",
        kind=source.kind,
        api=api,
        body=json.dumps(body, ensure_ascii=ascii_only).encode(),
        text_bytes=text_bytes,
        max_tokens=length.max_tokens,
        stream=stream,
        include_usage=include_usage,
        arrival_s=arrival_s,
        prompts=prompts,
        n=n,
    )


def _draw_n(rng: random.Random, api: TrafficApi, length: ItemLength) -> int:
    # With a stated limit the tokens of one sequence are known exactly.
    if api is TrafficApi.CHAT and length.max_tokens is not None and rng.random() < _SEVERAL:
        return rng.choice((2, 4, 8))
    return 1


def _limits(length: ItemLength, n: int) -> dict[str, object]:
    limits: dict[str, object] = {} if n == 1 else {"n": n}
    return limits if length.max_tokens is None else {**limits, "max_tokens": length.max_tokens}


def draw_length(rng: random.Random, options: TrafficOptions) -> ItemLength:
    """Draw a length: up to `short` from Azure 2023, above it log-uniform up to 8 x `short`."""
    if rng.random() < options.exceeding:
        top = min(8 * options.short, 0.9 * options.long)
        total = int(math.exp(rng.uniform(math.log(options.short * 1.02), math.log(top))))
        if rng.random() < 0.2:
            # A short prompt with a large limit, which prompt length alone would misjudge.
            prompt = rng.randint(50, max(51, options.short // 4))
            return ItemLength(prompt, total - prompt)
    else:
        # Only the part of the distribution that fits the window, so `exceeding` alone decides the
        # rest.
        total = int(quantile(rng.uniform(0, share(options.short)), AZURE_2023))
    limit = None if rng.random() < 0.2 else _draw_limit(rng, total)
    return ItemLength(max(8, total - (limit or _USUAL_OUTPUT)), limit)


def _draw_limit(rng: random.Random, total: int) -> int:
    return rng.choice([limit for limit in _LIMITS if limit <= total // 2] or [16])


def share(tokens: int, table: Sequence[tuple[int, float]] = AZURE_2023) -> float:
    """Return the share of requests that have at most `tokens` tokens."""
    for (low, below), (high, upto) in pairwise(table):
        if tokens <= high:
            # Between two points the share grows with the logarithm of the tokens, as in quantile().
            part = math.log(max(tokens, low) / low) / math.log(high / low)
            return below + part * (upto - below)
    return 1.0


def quantile(at: float, table: Sequence[tuple[int, float]]) -> float:
    """Return the number of tokens that a share `at` of the requests does not exceed."""
    shares = [upto for _, upto in table]
    index = min(max(1, bisect_left(shares, at)), len(table) - 1)
    (low, below), (high, upto) = table[index - 1], table[index]
    part = (at - below) / (upto - below) if upto > below else 0.0
    return float(low * (high / low) ** min(1.0, max(0.0, part)))


def compose(rng: random.Random, source: Source, size: int) -> str:
    """Return at most `size` UTF-8 bytes of the source: runs of pieces from random places."""
    parts: list[bytes] = []
    left = max(1, size)
    while left > 0:
        start = rng.randrange(len(source.pieces))
        for piece in source.pieces[start : start + rng.randint(4, 20)]:
            parts.append(piece.encode()[:left])
            left -= len(parts[-1])
    # The size may end within a character, which is left out.
    return b"".join(parts).decode(errors="ignore")


def _content(
    rng: random.Random, api: TrafficApi, source: Source, text: str
) -> tuple[dict[str, object], int]:
    if api is TrafficApi.COMPLETION:
        return {"prompt": _prompts(rng, text)}, len(text.encode())
    messages = _messages(rng, text)
    size = sum(len(message["content"].encode()) for message in messages)
    if source.kind not in {"english", "code", "json"} or rng.random() < 0.9:
        return {"messages": messages}, size
    tools = [_tool(subject) for subject in rng.sample(_TOOL_SUBJECTS, rng.randint(1, 3))]
    size += sum(len(json.dumps(tool)) for tool in tools)
    # A server without a tool parser accepts no other choice than "none".
    return {"messages": messages, "tools": tools, "tool_choice": "none"}, size


def _prompts(rng: random.Random, text: str) -> str | list[str]:
    """Return the text as one prompt, or cut into a batch of non-empty ones."""
    if len(text) < 4 or rng.random() >= _BATCHES:
        return text
    cuts = sorted(rng.sample(range(1, len(text)), rng.randint(1, 3)))
    return [text[low:high] for low, high in pairwise([0, *cuts, len(text)])]


def _count_prompts(content: Mapping[str, object]) -> int:
    prompt = content.get("prompt")
    return len(prompt) if isinstance(prompt, list) else 1


def _messages(rng: random.Random, text: str) -> list[dict[str, str]]:
    turns = rng.choice((1, 1, 1, 2, 3, 5))
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(turns - 1))
    parts = [text[low:high] for low, high in pairwise([0, *cuts, len(text)])]
    # The last turn is the user's, so the first of an even number is the system's.
    roles = ["user", "assistant"] * turns
    messages = [
        {"role": role, "content": part}
        for role, part in zip(roles[turns % 2 == 0 :][:turns], parts, strict=True)
    ]
    if turns % 2 == 0:
        messages[0]["role"] = "system"
    return messages


def _tool(subject: str) -> Mapping[str, object]:
    properties = {
        "place": {"type": "string", "description": f"Where the {subject} is wanted, as a name"},
        "day": {"type": "string", "description": "The day in the form YYYY-MM-DD"},
        "units": {"type": "string", "enum": ["metric", "imperial"]},
    }
    parameters = {"type": "object", "properties": properties, "required": ["place"]}
    function = {
        "name": f"find_{subject}",
        "description": f"Look up the {subject.replace('_', ' ')} for a place and a day.",
        "parameters": parameters,
    }
    return {"type": "function", "function": function}
