"""Write requests from texts: conversations with tools, cut to length in a tokenizer's tokens."""

import json
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from extproc.evaluation.cases import Case, Draft, Reader, Template
from extproc.evaluation.lengths import Draw, DrawnLength, stated_limit
from extproc.evaluation.texts import MIXED
from extproc.evaluation.tokenizer import TextTokenizer, Tokenized
from extproc.planner.traffic.texts import BLENDED, MORE_MESSAGES, MOST_BLENDED, MOST_MESSAGES

_WITH_TOOLS: Final = 0.15
_MOST_TOOLS: Final = 12
_WORDS: Final = ("account", "order", "invoice", "ticket", "sensor", "route", "page", "deploy")
_VERBS: Final = ("find", "list", "update", "cancel", "describe")


class Writer:
    """Writes bodies of a wanted length, in the tokenizer's tokens.

    `stated` is the share of them that state an output limit.
    """

    def __init__(
        self,
        texts: Sequence[Tokenized],
        tokenizer: TextTokenizer,
        template: Template,
        *,
        stated: float,
    ) -> None:
        self._texts = tuple(texts)
        self._count = lru_cache(4096)(tokenizer.count)
        self.template = template
        self._stated = stated

    def write(self, rng: random.Random, length: DrawnLength) -> Draft:
        """Write one request."""
        # One more than there are texts: the class that mixes them is as frequent as any other.
        chosen = rng.randrange(len(self._texts) + 1)
        mixed = chosen == len(self._texts)
        main = rng.choice(self._texts) if mixed else self._texts[chosen]
        tools = _tools(rng) if mixed or rng.random() < _WITH_TOOLS else []
        # Counted as the template renders them: as JSON.
        tool_tokens = sum(self._count(json.dumps(tool)) for tool in tools)
        turns = _turns(rng)
        call = _call(rng, tools) if tools and turns > 1 else None
        if call:
            tool_tokens += self._count(call["name"]) + self._count(call["arguments"])
        added = self.template.tokens(turns + bool(call), len(tools) + bool(call))
        # At least one token for each turn, also where tools and template exceed the drawn length.
        parts = _parts(rng, max(length.prompt - tool_tokens - added, turns), turns)
        contents, tokens = self._contents(rng, parts, main, mixed=mixed)
        body: dict[str, object] = {"messages": _messages(rng, contents, call)}
        if tools:
            body["tools"] = tools
        body |= self.limits(rng, length.output)
        prompt_tokens = tokens + tool_tokens + added
        return Draft(MIXED if mixed else main.kind, body, prompt_tokens, length.output)

    def limits(self, rng: random.Random, output: int) -> dict[str, object]:
        """Return the field of a body that states its limit, for the share of those that do."""
        return {"max_tokens": stated_limit(output)} if rng.random() < self._stated else {}

    def text(self, rng: random.Random, tokens: int) -> tuple[str, int]:
        """Return a text of about `tokens` tokens, at least one, and its exact number."""
        return _cut(rng, rng.choice(self._texts), tokens)

    def _contents(
        self, rng: random.Random, parts: list[int], main: Tokenized, *, mixed: bool
    ) -> tuple[list[str], int]:
        texts, total = [], 0
        blended = mixed or rng.random() < BLENDED
        for wanted in parts:
            source = rng.choice(self._texts) if blended and rng.random() < MOST_BLENDED else main
            text, tokens = _cut(rng, source, wanted)
            texts.append(text)
            total += tokens
        return texts, total


def _cut(rng: random.Random, source: Tokenized, wanted: int) -> tuple[str, int]:
    runs, total = [], 0
    while total < wanted:
        text, tokens = source.run(rng.random(), wanted - total)
        runs.append(text)
        total += tokens
    return "".join(runs), total


def _turns(rng: random.Random) -> int:
    turns = 1
    while turns < MOST_MESSAGES and rng.random() < MORE_MESSAGES:
        turns += 1
    return turns


def _parts(rng: random.Random, tokens: int, turns: int) -> list[int]:
    """Divide the tokens among the turns; a few turns get most of them."""
    weights = [rng.expovariate(1.0) ** 2 for _ in range(turns)]
    spare, total = tokens - turns, sum(weights)
    return [1 + int(spare * weight / total) for weight in weights]


def _messages(
    rng: random.Random, contents: list[str], call: dict[str, str] | None
) -> list[dict[str, object]]:
    roles = ["user", "assistant"] * len(contents)
    messages: list[dict[str, object]] = [
        {"role": role, "content": text} for role, text in zip(roles, contents, strict=False)
    ]
    if len(messages) > 1 and rng.random() < 0.5:
        messages[0]["role"] = "system"
    if call:
        made = {"id": "call_0", "type": "function", "function": call}
        messages.insert(1, {"role": "assistant", "content": None, "tool_calls": [made]})
    return messages


def _tools(rng: random.Random) -> list[dict[str, object]]:
    return [_tool(rng) for _ in range(rng.randint(1, _MOST_TOOLS))]


def _tool(rng: random.Random) -> dict[str, object]:
    word, verb = rng.choice(_WORDS), rng.choice(_VERBS)
    properties = {
        f"{name}_id": {"type": "string", "description": f"Which {name} is meant, by its number"}
        for name in rng.sample(_WORDS, rng.randint(1, 4))
    }
    function = {
        "name": f"{verb}_{word}",
        "description": f"{verb.capitalize()} the {word} that the user asks for, and nothing else.",
        "parameters": {"type": "object", "properties": properties, "required": list(properties)},
    }
    return {"type": "function", "function": function}


def _call(rng: random.Random, tools: list[dict[str, object]]) -> dict[str, str]:
    arguments = {f"{rng.choice(_WORDS)}_id": str(rng.randrange(10**6))}
    return {"name": f"{rng.choice(_VERBS)}_{len(tools)}", "arguments": json.dumps(arguments)}


def write_cases(
    writer: Writer, reader: Reader, draw: Draw, count: int, seed: str
) -> Iterator[Case]:
    """Write and read `count` requests; the seed decides them."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    for _ in range(count):
        draft = writer.write(rng, draw(rng))
        # Half of the clients escape other characters as \uXXXX, Python's json.dumps by default.
        yield reader.read(draft, ascii_only=rng.random() < 0.5)
