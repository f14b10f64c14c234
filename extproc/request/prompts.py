"""Find the prompts of a body: those that may be the largest, and all of them together.

A window holds one sequence, so the largest prompt decides which pool can serve the request. Usage
counts all prompts, so their sum is what an answer teaches about. What prompts share is read once
and counted once for each.

    {"prompt": ["a", "bbb"]}                   two prompts, the largest is "bbb"
    {"query": "q", "documents": ["d", "ee"]}   two prompts, "q" + "d" and "q" + "ee"
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import chain
from types import UnionType
from typing import Final

import msgspec
from msgspec import structs

from extproc.request.apis import Api
from extproc.request.conversation import Conversation, role_of
from extproc.request.fields import TokenIds
from extproc.request.prompt import (
    MAX_IMAGES,
    NodeBudget,
    Optional,
    Prompt,
    PromptReader,
    TextSample,
)
from extproc.request.sample import rough_tokens, take_sample

MAX_OBJECTS: Final = 1 << 10
"""The most prompts that are told apart if they are not plain texts or ids; more count as one."""

CANDIDATES: Final = 16
"""The most prompts of a request that are measured to find the largest; ranked by rough tokens."""

VIDEO_FRAMES: Final = 16
"""By its rough tokens a video is so many images of unknown size: vLLM samples 32 frames
(media/video.py), two of which make the tokens of one image in the common models."""

_PIXELS_PER_TOKEN: Final = 784
_MEDIUM_TOKENS: Final = 1400  # an image of unknown size, a recording, a frame of a video
_NO_TOOLS: Final = ("none", {"type": "none"})


class Prompts(msgspec.Struct, frozen=True, gc=False):
    """The prompts of one body."""

    candidates: tuple[Prompt, ...]
    """Those that may have the most tokens, by a rough count in descending order."""
    count: int = 1
    own: Prompt | None = None
    """What the prompts do not share, all together; None if there is only one prompt."""
    shared: Prompt | None = None
    """What each of them has beside its own; None if there is only one prompt."""
    conversation: Conversation | None = None
    """The only prompt, if it is a conversation whose beginnings can be told."""

    @property
    def largest(self) -> Prompt:
        """The largest prompt by the rough count."""
        return self.candidates[0]

    @property
    def parts(self) -> tuple[Prompt, ...]:
        """Prompts that together hold everything that was read, each thing once or more."""
        return tuple(filter(None, (*self.candidates, self.own, self.shared)))


@dataclass(frozen=True, slots=True)
class _Field:
    """A prompt field of a body: one value for all prompts, or entries of one prompt each."""

    read: Callable[[PromptReader, object], None]
    value: object
    entries: Sequence[object] = ()
    conversation: bool = False

    @property
    def messages(self) -> int:
        return sum(_messages(entry) if self.conversation else 1 for entry in self.entries)

    def largest(self, count: int, nodes: NodeBudget) -> "list[_Field]":
        """Return the field once for each of its `count` largest entries, with that entry alone."""
        if len(self.entries) < 2:
            return [self]
        found = nlargest(count, self.entries, key=lambda entry: self._tokens(entry, nodes))
        return [_Field(self.read, [entry], [entry], self.conversation) for entry in found]

    def _tokens(self, entry: object, nodes: NodeBudget) -> float:
        if isinstance(entry, str):
            return rough_tokens(entry)
        if isinstance(entry, TokenIds):
            return entry.count
        reader = PromptReader(nodes)
        self.read(reader, [entry])
        texts = chain(reader.texts, *reader.optional.values())
        media = _MEDIUM_TOKENS * (reader.audios + VIDEO_FRAMES * reader.videos)
        return reader.token_ids + sum(map(rough_tokens, texts)) + sum(_sizes(reader)) + media


def read_prompts(api: Api, body: Mapping[str, object], *, turns: bool = False) -> Prompts:
    """Read the prompts of a decoded body; `turns` keeps those of a conversation.

    Raises TooManyNodesError and OpaquePartError.
    """
    nodes, fields = NodeBudget(), list(_fields(api, body))
    headings = sum(bool(body.get(name)) for name in api.headings)
    split = [each for each in fields if len(each.entries) > 1]
    if not split:
        reader = _read(fields, nodes, marks=turns)
        prompt = _prompt_of(reader, fields, headings)
        return Prompts((prompt,), conversation=_conversation(reader, fields) if turns else None)
    count, most = max((len(each.entries), index) for index, each in enumerate(split))
    shared = _prompt([each for each in fields if len(each.entries) < 2], headings, nodes)
    return Prompts(
        tuple(_candidates(fields, split[most], headings, nodes)),
        count,
        _prompt(split, 0, nodes),
        # A prompt of several fields, such as a query and a document, counts as one message.
        structs.replace(shared, messages=headings),
    )


def _candidates(
    fields: Sequence[_Field], longest: _Field, headings: int, nodes: NodeBudget
) -> Iterator[Prompt]:
    for entry in longest.largest(CANDIDATES, nodes):
        chosen = [entry if each is longest else each.largest(1, nodes)[0] for each in fields]
        yield _prompt(chosen, headings, nodes)


def _fields(api: Api, body: Mapping[str, object]) -> Iterator[_Field]:
    unused = body.get("tool_choice") in _NO_TOOLS
    for name, read in api.prompt.items():
        value = body.get(name)
        if value is None:
            continue
        if unused and name in api.tools:
            read = PromptReader.read_unused_tools  # noqa: PLW2901
        conversation = name in api.conversations or _is_conversation(value)
        if name in api.conversations or (name in api.prompts and conversation):
            entries = _conversations(value)
            yield _Field(PromptReader.read_conversation, entries, entries, conversation=True)
        elif name in api.prompts:
            entries = _entries(value)
            yield _Field(read, entries, entries)
        else:
            yield _Field(read, value)


def _is_conversation(value: object) -> bool:
    """Return whether a prompt is written as messages: vLLM takes these for one prompt."""
    match value:
        case [{"role": _}, *_] | [[{"role": _}, *_], *_]:
            return True
        case _:
            return False


def _conversations(value: object) -> Sequence[object]:
    if not isinstance(value, list) or not _is_list_of(value, list) or len(value) > MAX_OBJECTS:
        return [value]
    return value


def _entries(value: object) -> Sequence[object]:
    if not isinstance(value, list) or _is_list_of(value, int | float):
        return [value]
    plain = all(isinstance(entry, str | TokenIds) for entry in value)
    return value if plain or len(value) <= MAX_OBJECTS else [value]


def _is_list_of(value: list[object], kind: type | UnionType) -> bool:
    return bool(value) and isinstance(value[0], kind)


def _messages(conversation: object) -> int:
    if not isinstance(conversation, list):
        return 1
    return len(conversation) if not conversation or _is_list_of(conversation, dict | str) else 1


def _sizes(reader: PromptReader) -> Iterator[float]:
    for image in reader.images:
        yield image.width * image.height / _PIXELS_PER_TOKEN or _MEDIUM_TOKENS


def _read_turns(turns: list[object]) -> Prompt:
    field = _Field(PromptReader.read_conversation, turns, [turns], conversation=True)
    return _prompt([field], 0, NodeBudget())


def _conversation(reader: PromptReader, fields: Sequence[_Field]) -> Conversation | None:
    turns = next((each.entries[0] for each in fields if each.conversation and each.entries), None)
    # Token ids have no text, and of very many images not every size is read.
    if not isinstance(turns, list) or reader.token_ids or len(reader.images) > MAX_IMAGES:
        return None
    marks = reader.marks[1:-1]  # without those of the list that holds the conversation
    if len(marks) != len(turns) + 1:  # conversations within conversations
        return None
    thoughts = reader.optional.get(Optional.PAST_REASONING, [])
    others = [
        (kind.value, texts)
        for kind, texts in reader.optional.items()
        if kind is not Optional.PAST_REASONING
    ]
    return Conversation(
        list(map(role_of, turns)),
        marks,
        reader.texts,
        thoughts,
        reader.images,
        reader.unsized,
        others,
        lambda place: _read_turns(turns[place:]),
    )


def _read(fields: Sequence[_Field], nodes: NodeBudget, *, marks: bool = False) -> PromptReader:
    reader = PromptReader(nodes, marks=marks)
    for each in fields:
        each.read(reader, each.value)
    return reader


def _prompt(fields: Sequence[_Field], headings: int, nodes: NodeBudget) -> Prompt:
    return _prompt_of(_read(fields, nodes), fields, headings)


def _prompt_of(reader: PromptReader, fields: Sequence[_Field], headings: int) -> Prompt:
    text_bytes, sample = take_sample(reader.texts)
    return Prompt(
        text_bytes=text_bytes,
        sample=sample,
        token_ids=reader.token_ids,
        messages=headings + max((each.messages for each in fields), default=0),
        tools=reader.tools,
        images=tuple(reader.images),
        audios=reader.audios,
        videos=reader.videos,
        optional={k: TextSample(*take_sample(texts)) for k, texts in reader.optional.items()},
        written=reader.texts,
        definitions=reader.definitions,
    )
