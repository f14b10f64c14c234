"""What the service reads of a request, with the truth that only an answer shows.

A body is dropped once the service's own functions have read it: what stays is a Case.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from extproc.budget.values import Asked
from extproc.evaluation.lengths import Draw
from extproc.evaluation.tokenizer import TextTokenizer
from extproc.request.apis import APIS, Endpoint
from extproc.request.prompt import PromptReader
from extproc.request.reader import UnreadableRequest, read_request
from extproc.routing.route import ask


@dataclass(frozen=True, slots=True)
class Template:
    """What a chat template adds, in tokens."""

    request: int
    message: int
    tool: int
    any_tool: int

    def tokens(self, messages: int, tools: int) -> int:
        """Count what it adds to a request."""
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
"""In the range of published templates; each tokenizer in turn has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request as the service has read it, with the truth that only an answer shows."""

    kind: str
    """The class of its text."""
    asked: Asked
    messages: int
    tools: int
    structured_bytes: int
    """Of text_bytes: tool definitions, arguments of calls, schemas."""
    prompt_tokens: int
    completion_tokens: int
    """What would be answered if no window cut it."""

    @property
    def needed(self) -> int:
        """Tokens that a window must hold: the prompt, and the stated limit or else the answer."""
        stated = self.asked.output_limit
        return self.prompt_tokens + (self.completion_tokens if stated is None else stated)


class Draft(NamedTuple):
    """A body, before it is read, and its truth."""

    kind: str
    body: dict[str, object]
    prompt_tokens: int
    completion_tokens: int


class Reader:
    """Reads bodies as the service does."""

    def __init__(self, model: str) -> None:
        self._model = model

    def read(self, draft: Draft, *, ascii_only: bool) -> Case:
        """Encode a body and read it again; raises UnreadableRequest."""
        body = {"model": self._model, **draft.body}
        sent = json.dumps(body, ensure_ascii=ascii_only).encode()
        request = read_request(_endpoint(body), sent)
        return Case(
            kind=draft.kind,
            asked=ask(request),
            messages=request.prompts.largest.messages,
            tools=request.prompts.largest.tools,
            structured_bytes=_structured_bytes(body),
            prompt_tokens=draft.prompt_tokens,
            completion_tokens=draft.completion_tokens,
        )


def read_cases(
    bodies: Sequence[dict[str, object]],
    tokenizer: TextTokenizer,
    template: Template,
    draw: Draw,
    seed: str,
) -> Iterator[Case]:
    """Read a user's requests, with drawn outputs; those with media, or unreadable, are left out."""
    rng, reader = random.Random(seed), Reader(tokenizer.name)  # noqa: S311
    for body in bodies:
        try:
            case = reader.read(Draft("requests", body, 1, draw(rng).output), ascii_only=False)
        except UnreadableRequest:
            continue
        prompt = _prompt(body)
        if prompt.images or prompt.audios or prompt.videos:
            continue
        tokens = sum(map(tokenizer.count, prompt.texts)) + prompt.token_ids
        tokens += template.tokens(case.messages, case.tools)
        yield replace(case, prompt_tokens=tokens)


def _endpoint(body: dict[str, object]) -> Endpoint:
    if "messages" in body:
        return Endpoint.CHAT
    return Endpoint.COMPLETION if "prompt" in body else Endpoint.RESPONSES


def _prompt(body: dict[str, object]) -> PromptReader:
    prompt = PromptReader()
    for field, reader in APIS[_endpoint(body)].prompt.items():
        if (value := body.get(field)) is not None:
            reader(prompt, value)
    return prompt


def _structured_bytes(body: dict[str, object]) -> int:
    """Count what stands in a body as JSON for the template: tool definitions and arguments."""
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
