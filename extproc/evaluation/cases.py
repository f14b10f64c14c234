"""Read requests as the service does, and keep the true lengths that only an answer shows.

A body is dropped once the service's own functions have read it; a Case remains.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from extproc.budget.values import Asked
from extproc.evaluation.lengths import Draw
from extproc.evaluation.tokenizer import TextTokenizer
from extproc.request.apis import APIS, Endpoint
from extproc.request.prompt import PromptReader
from extproc.request.reader import Request, UnreadableRequest, read_request
from extproc.routing.ask import ask
from extproc.routing.counting import Countable, countable
from extproc.routing.resume import Trail, find_trail
from extproc.tokens import needed_tokens

_MOST_COUNTED: Final = 1 << 14  # bytes: the most that budget.count_bytes permits

Body = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Template:
    """Tokens that a chat template adds."""

    request: int
    message: int
    tool: int
    any_tool: int  # once, if there is any: the instructions on how to call one

    def tokens(self, messages: int, tools: int) -> int:
        """Return the tokens that it adds to a request."""
        any_tool = self.any_tool if tools else 0
        return self.request + self.message * messages + self.tool * tools + any_tool


TEMPLATES: Final = (
    Template(23, 5, 12, 150),
    Template(26, 4, 10, 110),
    Template(4, 5, 14, 90),
    Template(60, 4, 9, 40),
    Template(3, 8, 16, 60),
    Template(2, 3, 11, 130),
    Template(4, 5, 20, 230),
)
"""In the range of published templates; the tokenizers take them in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request as the service has read it, with its true lengths."""

    kind: str
    """The class of its text."""
    asked: Asked
    messages: int
    tools: int
    structured_bytes: int
    """The part of text_bytes that is JSON: tool definitions, arguments of calls, schemas."""
    prompt_tokens: int
    """Of the largest sequence, which decides whether a window holds the request."""
    whole_tokens: int
    """Of all prompts together, as usage counts them."""
    completion_tokens: int
    """Of one sequence, if neither a limit nor a window cuts it."""
    usage_unstated: bool = False
    """Whether the answer is a stream that states its usage only if the service asks for it."""
    trail: Trail | None = field(default=None, repr=False, compare=False)
    """Its beginnings, with its texts; kept only where earlier requests may have them."""
    texts: Countable | None = field(default=None, repr=False, compare=False)
    """Its texts, if a tokenizer of the service can count them."""

    @property
    def used(self) -> int:
        """Tokens of a window that the largest sequence fills if the window does not cut it."""
        limit = self.asked.output_limit
        output = self.completion_tokens
        return self.prompt_tokens + (output if limit is None else min(output, limit))

    @property
    def needed(self) -> int:
        """Tokens of a window that the largest sequence needs."""
        output = self.used - self.prompt_tokens
        return needed_tokens(self.prompt_tokens, self.asked.reserved, output)


class Draft(NamedTuple):
    """A body of one prompt that is not read yet, and its true lengths."""

    kind: str
    body: dict[str, object]
    prompt_tokens: int
    completion_tokens: int
    repeats: bool = False
    """Whether it may begin as an earlier one."""


class Reader:
    """Reads bodies as the service does."""

    def __init__(self, model: str) -> None:
        self._model = model

    def read(self, draft: Draft, *, ascii_only: bool) -> Case:
        """Encode a body and read it. Raises UnreadableRequest."""
        request = self.request(draft.body, ascii_only=ascii_only, turns=draft.repeats)
        prompts = draft.prompt_tokens, draft.prompt_tokens
        case = _case(draft.kind, draft.body, request, (*prompts, draft.completion_tokens))
        trail = find_trail(request, case.asked, b"") if draft.repeats else None
        return replace(case, trail=trail, texts=countable(request, case.asked, _MOST_COUNTED))

    def request(self, body: Body, *, ascii_only: bool = False, turns: bool = False) -> Request:
        """Encode a body and read it. Raises UnreadableRequest."""
        sent = json.dumps({"model": self._model, **body}, ensure_ascii=ascii_only).encode()
        return read_request(_endpoint(body), sent, turns=turns)


def read_cases(
    bodies: Sequence[dict[str, object]],
    tokenizer: TextTokenizer,
    template: Template,
    draw: Draw,
    seed: str,
) -> Iterator[Case]:
    """Read a user's requests, with drawn outputs.

    Skips those whose tokens their bodies do not show: unreadable ones, those with media, and those
    that the pool may cut.
    """
    rng, reader = random.Random(seed), Reader(tokenizer.name)  # noqa: S311 - not secret
    for body in bodies:
        output = draw(rng).output
        try:
            request = reader.request(body)
        except UnreadableRequest:
            continue
        prompts = [_prompt(each) for each in single_prompts(body)]
        # A tokenizer of texts cannot count what an image, audio or video costs.
        media = any(prompt.images or prompt.audios or prompt.videos for prompt in prompts)
        if media or request.truncates:
            continue
        tokens = [_count(prompt, request, tokenizer, template) for prompt in prompts]
        lengths = (max(tokens), sum(tokens), output if request.generates else 0)
        yield _case("requests", body, request, lengths)


def single_prompts(body: Body) -> Iterator[Body]:
    """Yield the body once for each prompt that it holds, with that prompt alone."""
    fields = {
        name: value if isinstance(value, list) and not _is_ids(value) else [value]
        for name in APIS[_endpoint(body)].prompts
        if (value := body.get(name))
    }
    for row in range(max(map(len, fields.values()), default=1)):
        # /score pairs one text_1 with each of several text_2: a field with fewer entries repeats
        # its last.
        yield {**body, **{name: [each[min(row, len(each) - 1)]] for name, each in fields.items()}}


def _is_ids(value: list[object]) -> bool:
    # A list of numbers is one prompt, already tokenized.
    return bool(value) and isinstance(value[0], int)


def _case(kind: str, body: Body, request: Request, lengths: tuple[int, int, int]) -> Case:
    prompt_tokens, whole_tokens, completion_tokens = lengths
    return Case(
        kind=kind,
        asked=ask(request),
        messages=request.prompts.largest.messages,
        tools=request.prompts.largest.tools,
        structured_bytes=_structured_bytes(body),
        prompt_tokens=prompt_tokens,
        whole_tokens=whole_tokens,
        completion_tokens=completion_tokens,
        usage_unstated=request.usage_unstated,
    )


def _count(
    prompt: PromptReader, request: Request, tokenizer: TextTokenizer, template: Template
) -> int:
    """Count the tokens of one prompt, with what the chat template adds."""
    largest = request.prompts.largest
    added = template.tokens(largest.messages, largest.tools)
    return sum(map(tokenizer.count, prompt.texts)) + prompt.token_ids + added


def _endpoint(body: Body) -> Endpoint:
    match body:
        case {"messages": _}:
            return Endpoint.CHAT
        case {"prompt": _}:
            return Endpoint.COMPLETION
        case {"query": _} | {"text_1": _}:
            return Endpoint.SCORE
        case {"input": [str() | int() | list(), *_]}:
            return Endpoint.EMBEDDING
        case _:
            return Endpoint.RESPONSES


def _prompt(body: Body) -> PromptReader:
    prompt = PromptReader()
    for name, reader in APIS[_endpoint(body)].prompt.items():
        if (value := body.get(name)) is not None:
            reader(prompt, value)
    return prompt


def _structured_bytes(body: Body) -> int:
    """Count the bytes that the template renders as JSON: tool definitions and arguments."""
    structured = PromptReader()
    structured.read_tools(body.get("tools"))
    match body.get("messages"):
        case [*messages]:
            for message in messages:
                _read_calls(structured, message)
    return sum(len(text.encode()) for text in structured.texts)


def _read_calls(structured: PromptReader, message: object) -> None:
    match message:
        case {"tool_calls": [*calls]}:
            for call in calls:
                match call:
                    case {"function": {"arguments": arguments}}:
                        structured.read_json(arguments)
