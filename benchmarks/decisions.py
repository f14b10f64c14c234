"""Section decide: the CPU of decisions and observations in this process, without a transport.

What is measured is the whole stream: parsing, decision or learning, and the replies as bytes.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Final

from rich.table import Table

from benchmarks.bodies import (
    KIB,
    MIB,
    Body,
    encode_chat,
    encode_messages,
    image_body,
    make_text,
    text_body,
)
from benchmarks.engine import Engine
from benchmarks.messages import answer_messages, request_messages
from benchmarks.run import Plan, Result, Tools, new_table, ratios, rotated, spread
from extproc.config.settings import Settings
from extproc.evaluation.tokenizer import TextTokenizer, load_tokenizers
from extproc.progress import Show

_BASE: Final = "1 KB"
_HEADER: Final = "x-task"
_TAUGHT: Final = 100  # answers before anything is measured: twice what calibrates a category
_BLOCK: Final = 20  # decisions between two looks at the clock
_TOKENIZED: Final = (KIB, 4 * KIB, 64 * KIB)
_METHOD: Final = """\
CPU microseconds, median [lowest, highest] of {rounds} rounds, each with all rows in turn; x is to
{base} of the same round. decide: the router's stream, from the bytes of its two messages to those
of its replies. observe: the observer's stream of an answer with usage; not learnt: with status 500.
"""


@dataclass(frozen=True, slots=True)
class _Traffic:
    """A row: requests that are repeated in turn, and the settings that they meet."""

    name: str
    bodies: Sequence[Body]
    headers: Sequence[Mapping[str, str]] = ({},)
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU microseconds of one row in one round."""

    decide_us: float
    observe_us: float
    unlearnt_us: float


async def measure(plan: Plan, tools: Tools, show: Show) -> Result:
    """Measure all rows, and exact tokenizers."""
    del tools  # all is in this process
    seconds = 0.02 if plan.quick else 0.2
    rows = {each.name: _Row(each) for each in _traffics(quick=plan.quick)}
    counters = list(_counters(plan))
    found: dict[str, list[Costs]] = {name: [] for name in rows}
    exact: dict[str, list[float]] = {name: [] for name, _ in counters}
    show.begin("decide", plan.rounds * (len(rows) + len(counters)))
    for number in range(plan.rounds):
        for name in rotated(tuple(rows), number):
            found[name].append(rows[name].measure(seconds))
            show.advance()
        for name, count in counters:
            exact[name].append(_us(count, seconds))
            show.advance()
    method = _METHOD.format(rounds=plan.rounds, base=_BASE)
    return Result((_table(found), method, _exact_table(exact)), {"costs": found, "exact": exact})


def _traffics(*, quick: bool) -> Iterator[_Traffic]:
    small = _texts(KIB)
    yield _Traffic(_BASE, small)
    yield _Traffic("10 pools", small, settings=_pools(10))
    if quick:
        return
    yield from (_Traffic(f"{size // KIB} KB", _texts(size)) for size in (4 * KIB, 64 * KIB))
    tasks = [{_HEADER: f"task-{number}"} for number in range(1000)]
    named = Settings.model_validate({"categories": {"header": _HEADER, "max": 1023}})
    yield _Traffic("1,000 categories", small, tasks, named)
    models = [_chat(make_text(KIB - 80, 0), model=f"model-{number}") for number in range(100)]
    yield _Traffic("100 models", models)
    for number in (10, 100):
        parts = [{"role": "user", "content": make_text(4 * KIB // number, 0)}] * number
        yield _Traffic(f"4 KB in {number} messages", [_body(encode_messages(parts))])
    yield _Traffic("4 KB, 4 tool calls", [_body(encode_messages([*_calls(4)], tools=[_tool(0)]))])
    for number in (1, 10, 100):
        tools = [_tool(n) for n in range(number)]
        yield _Traffic(f"1 KB, {number} tools", [_chat(make_text(KIB - 80, 0), tools=tools)])
    schemas = [_described_tool(n) for n in range(60)]
    yield _Traffic("4 KB, 60 tools", [_chat(make_text(4 * KIB, 0), tools=schemas)])
    yield _Traffic("1 MB", [text_body(MIB)])
    yield _Traffic("1 MB, image", [image_body(MIB)])


def _texts(size: int) -> Sequence[Body]:
    # Of several texts none is kept from the request before.
    return [text_body(size, seed) for seed in range(8)]


def _pools(number: int) -> Settings:
    windows = [4096 * 3**exponent // 2**exponent for exponent in range(number)]
    pools = [
        {"name": f"p{n}", "max_model_len": window, "address": f"127.0.0.1:{9000 + n}"}
        for n, window in enumerate(windows)
    ]
    return Settings.model_validate({"pools": pools})


def _chat(text: str, **more: object) -> Body:
    return _body(encode_chat(text, **more))


def _body(data: bytes) -> Body:
    return Body("", data, len(data) // 5)


def _tool(number: int) -> dict[str, object]:
    fields = {"city": {"type": "string", "description": "The city whose weather is asked for"}}
    parameters = {"type": "object", "properties": fields, "required": ["city"]}
    name = f"get_weather_{number}"
    described = {"name": name, "description": "Get the weather", "parameters": parameters}
    return {"type": "function", "function": described}


def _described_tool(number: int) -> dict[str, object]:
    """Return a tool of 500 to 1,100 bytes, as agents describe them."""
    words = iter(make_text(2 * KIB, number).split())
    properties: dict[str, object] = {
        next(words): {"type": "string", "description": " ".join(islice(words, 12))}
        for _ in range(number % 5)
    }
    limit = {"type": "integer", "minimum": 0, "maximum": 100, "default": 10}
    filters = {"type": "array", "items": {"type": "string", "enum": list(islice(words, 4))}}
    nested = {"type": "object", "properties": {"limit": limit, "filters": filters}}
    parameters = {
        "type": "object",
        "properties": properties | {"options": nested},
        "required": list(properties),
        "additionalProperties": False,
    }
    described = {"name": f"tool_{number}", "description": " ".join(islice(words, 25))}
    return {"type": "function", "function": described | {"parameters": parameters}}


def _calls(number: int) -> Iterator[dict[str, object]]:
    """Return the messages of an agent that has called so many tools, 4 KB in all."""
    yield {"role": "user", "content": make_text(KIB, 0)}
    for call in range(number):
        called = {"name": "get_weather_0", "arguments": json.dumps({"city": f"Berlin {call}"})}
        told = {"id": f"call-{call}", "type": "function", "function": called}
        yield {"role": "assistant", "content": None, "tool_calls": [told]}
        result = make_text(2 * KIB // number, call)
        yield {"role": "tool", "tool_call_id": f"call-{call}", "content": result}


class _Row:
    """The messages of a row, and an engine that has learnt from its answers."""

    def __init__(self, traffic: _Traffic) -> None:
        self._engine = Engine(traffic.settings)
        number = max(len(traffic.bodies), len(traffic.headers))
        pairs = list(islice(zip(cycle(traffic.bodies), cycle(traffic.headers)), number))
        self._requests = [request_messages(body.data, headers) for body, headers in pairs]
        for index in range(max(number, _TAUGHT)):
            body = pairs[index % number][0]
            request = self._requests[index % number]
            self._engine.teach(request, body.prompt_tokens)
        self._answers = []
        self._errors = []
        for request, (body, _) in zip(self._requests, pairs, strict=True):
            replies = self._engine.decide(request)
            self._answers.append(answer_messages(replies, body.prompt_tokens))
            self._errors.append(answer_messages(replies, None))

    def measure(self, seconds: float) -> Costs:
        """Measure each of the three for this CPU time."""
        engine, requests = self._engine, cycle(self._requests)
        answers, errors = cycle(self._answers), cycle(self._errors)
        return Costs(
            _us(lambda: engine.decide(next(requests)), seconds),
            _us(lambda: engine.observe(next(answers)), seconds),
            _us(lambda: engine.observe(next(errors)), seconds),
        )


def _us(call: Callable[[], object], seconds: float) -> float:
    """Return the CPU microseconds of a call, of as many as take `seconds`."""
    start, count = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds or not count:
        for _ in range(_BLOCK):
            call()
        count += _BLOCK
    return spent / count * 1e6


def _counters(plan: Plan) -> Iterator[tuple[str, Callable[[], int]]]:
    """Yield exact tokenizers that count texts, by name and size."""
    files = [plan.tokenizer] if plan.tokenizer else []
    for load in (*load_tokenizers(()), *(load_tokenizers(files) if files else ())):
        tokenizer = load()
        for size in _TOKENIZED[:1] if plan.quick else _TOKENIZED:
            yield f"{tokenizer.name}, {size // KIB} KB", _counting(tokenizer, make_text(size, 0))


def _counting(tokenizer: TextTokenizer, text: str) -> Callable[[], int]:
    return lambda: tokenizer.count(text)


def _table(found: Mapping[str, Sequence[Costs]]) -> Table:
    table = new_table(
        "In this process", "", ("decide us", "x", "observe us", "x", "observe, not learnt us")
    )
    base = found[_BASE]
    for name, rounds in found.items():
        decide, observe = ([each.decide_us for each in which] for which in (rounds, base))
        learnt, learnt_base = ([each.observe_us for each in which] for which in (rounds, base))
        table.add_row(
            name,
            spread(decide, ".1f"),
            spread(ratios(decide, observe), ".2f"),
            spread(learnt, ".1f"),
            spread(ratios(learnt, learnt_base), ".2f"),
            spread([each.unlearnt_us for each in rounds], ".1f"),
        )
    return table


def _exact_table(exact: Mapping[str, Sequence[float]]) -> Table:
    table = new_table("Exact tokenizers, counting the same text alone", "", ("us",))
    for name, values in exact.items():
        table.add_row(name, spread(values, ".1f"))
    return table
