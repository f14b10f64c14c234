"""Find the prompts of a body: the largest one, and all of them together.

A window holds one sequence, so the largest prompt decides which pool can serve the request. Usage
counts all prompts, so their sum is what an answer teaches about.

    {"prompt": ["a", "bbb"]}                   two prompts, the largest is "bbb"
    {"query": "q", "documents": ["d", "ee"]}   two prompts, "q" + "d" and "q" + "ee"
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import UnionType
from typing import Final, NamedTuple

from extproc.request.apis import Api
from extproc.request.fields import TokenIds
from extproc.request.image import Image
from extproc.request.prompt import Optional, PromptReader
from extproc.request.sample import take_sample, utf8_bytes

MAX_OBJECTS: Final = 1 << 10
"""The most prompts that are told apart if they are not plain texts or ids; more count as one."""

# For ranking the prompts of one request by size, in bytes of text.
_TOKEN_ID_BYTES: Final = 4
_MEDIUM_BYTES: Final = 4096
_NO_TOOLS: Final = ("none", {"type": "none"})


class TextSample(NamedTuple):
    """Some text: its UTF-8 bytes, and a sample of it."""

    text_bytes: int
    sample: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What one prompt consists of."""

    text_bytes: int
    """UTF-8 bytes, after JSON decoding, of all text that the chat template sees."""
    sample: bytes
    """That text, or evenly spaced pieces of it if it is longer than SAMPLE_BYTES."""
    token_ids: int
    """Prompt tokens that were given as ids."""
    messages: int
    """Messages of a conversation, with the system prompt; 1 for a plain text."""
    tools: int
    """Tool and function definitions, and tool calls."""
    images: tuple[Image, ...]
    audios: int
    videos: int
    optional: Mapping[Optional, TextSample] = field(default_factory=dict)
    """Text that chat templates may drop; it is not part of `sample`."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of one body."""

    largest: Prompt
    count: int
    whole: Prompt | None
    """All prompts together; None if there is only one."""


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

    def largest(self) -> "_Field":
        """Return the field with its largest entry alone."""
        if len(self.entries) < 2:
            return self
        entry = max(self.entries, key=self._size)
        return _Field(self.read, [entry], [entry], self.conversation)

    def _size(self, entry: object) -> int:
        if isinstance(entry, str):
            return utf8_bytes(entry)
        if isinstance(entry, TokenIds):
            return _TOKEN_ID_BYTES * entry.count
        reader = PromptReader()
        self.read(reader, [entry])
        media = len(reader.images) + reader.audios + reader.videos
        text_bytes = sum(map(utf8_bytes, chain(reader.texts, *reader.optional.values())))
        return text_bytes + _TOKEN_ID_BYTES * reader.token_ids + _MEDIUM_BYTES * media


def read_prompts(api: Api, body: Mapping[str, object]) -> Prompts:
    """Read the prompts of a decoded body."""
    fields = list(_fields(api, body))
    headings = sum(bool(body.get(name)) for name in api.headings)
    count = max((len(each.entries) for each in fields), default=1)
    if count < 2:
        return Prompts(_prompt(fields, headings), 1, None)
    largest = _prompt([each.largest() for each in fields], headings)
    return Prompts(largest, count, _whole(fields, headings, count))


def _fields(api: Api, body: Mapping[str, object]) -> Iterator[_Field]:
    unused = body.get("tool_choice") in _NO_TOOLS
    for name, read in api.prompt.items():
        value = body.get(name)
        if value is None:
            continue
        if unused and name in api.tools:
            read = PromptReader.read_unused_tools  # noqa: PLW2901
        if name in api.conversations:
            entries = _conversations(value)
            yield _Field(read, entries, entries, conversation=True)
        elif name in api.prompts:
            entries = _entries(value)
            yield _Field(read, entries, entries)
        else:
            yield _Field(read, value)


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


def _prompt(fields: Sequence[_Field], headings: int) -> Prompt:
    reader = PromptReader()
    for each in fields:
        each.read(reader, each.value)
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
    )


def _whole(fields: Sequence[_Field], headings: int, count: int) -> Prompt:
    """Add up all prompts; what they share counts once for each."""
    shared = [each for each in fields if len(each.entries) < 2]
    once, repeated = _prompt(fields, headings), _prompt(shared, headings)
    again = count - 1

    def shared_bytes(kind: Optional) -> int:
        return repeated.optional[kind].text_bytes if kind in repeated.optional else 0

    return replace(
        once,
        text_bytes=once.text_bytes + again * repeated.text_bytes,
        token_ids=once.token_ids + again * repeated.token_ids,
        messages=once.messages + again * headings,
        tools=once.tools + again * repeated.tools,
        optional={
            kind: text._replace(text_bytes=text.text_bytes + again * shared_bytes(kind))
            for kind, text in once.optional.items()
        },
    )
