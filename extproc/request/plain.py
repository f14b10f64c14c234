"""Read the most common body at a fraction of the cost: a chat of texts, images and calls of tools.

Invariant: what is returned is what the general reader would return, but for the order of the texts
of one turn, which there is that of its keys. A body with anything that needs more than its fields'
names gives None, and the general reader decides what it is. Only fields that are not read may
differ: what is not UTF-8 in them is an error to the general reader alone. vLLM answers such a body
with 400, whichever pool it gets to, so finding it is not worth a pass over every body.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from secrets import token_hex
from typing import Final, Literal, NamedTuple

import msgspec

from extproc.request.conversation import Conversation
from extproc.request.fields import MAX_ENTRIES, has_few_strings, is_small
from extproc.request.form import Form
from extproc.request.image import URL_CHARS, Image, read_image
from extproc.request.json_text import cut_long, write_compact
from extproc.request.prompt import ENDS_OF_THOUGHT, MAX_IMAGES, Mark, Prompt, as_text
from extproc.request.sample import SAMPLE_BYTES

_LONG_BYTES: Final = 4096
"""Strings from this length on are cut out before the rest is decoded."""
# Hardly any body has the first of its characters, and nobody else knows the others, so that no text
# of a body begins with it.
_MARK_SIGN: Final = b"\x7f"
_MARK: Final = _MARK_SIGN.decode() + token_hex(8)
_NO_TOOLS: Final = b"null"


class PlainTexts(NamedTuple):
    """What the texts of a chat, and its images, are."""

    texts: list[str | bytes]
    """Those of the messages first; those longer than SAMPLE_BYTES may be in UTF-8."""
    definitions: list[str]
    """Those of tools, which are the last of the texts."""
    calls: int
    images: tuple[Image, ...]


class _Url(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    url: str
    detail: str | None = None


class _Part(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    text: str = ""
    type: Literal["text", "image_url"] = "text"
    image_url: str | _Url | msgspec.UnsetType = msgspec.UNSET


class _Function(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: str
    arguments: str


class _Call(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    function: _Function
    id: str | None = None
    type: Literal["function"] = "function"
    index: int | None = None


class _Format(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["text", "json_object"]


class _Turn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A turn; OpenAI's own client sends an earlier answer with all of these fields."""

    role: str
    content: str | list[_Part] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    tool_calls: list[_Call] | None = None
    refusal: None = None
    function_call: None = None
    audio: None = None
    annotations: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    def beside(self) -> list[str] | None:
        """Return the texts beside the content; None if a call lacks one."""
        found = [self.name] if self.name else []
        for call in self.tool_calls or ():
            name, arguments = call.function.name, call.function.arguments
            if not name or not arguments:
                return None
            found += (name, arguments)
        return found

    def may_hold_thought(self, cut: Sequence[bytes]) -> bool:
        """Return whether a template may drop a part of this turn's texts."""
        content = self.content
        texts = [content] if isinstance(content, str) else [part.text for part in content or ()]
        texts += self.beside() or ()
        return any(_holds_thought(_restored(text, cut)) for text in texts)


class PlainChat(msgspec.Struct, gc=False):
    """A chat of plain texts; a field of type None decides too much to be read here."""

    messages: list[_Turn]
    model: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    tools: msgspec.Raw = msgspec.Raw(_NO_TOOLS)
    user: str | None = None
    tool_choice: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    best_of: None = None
    functions: None = None
    documents: None = None
    chat_template: None = None
    chat_template_kwargs: None = None
    truncate_prompt_tokens: None = None
    response_format: _Format | None = None
    stop: str | list[str] | None = None
    stop_sequences: None = None
    structured_outputs: None = None
    guided_json: None = None
    guided_regex: None = None
    guided_choice: None = None
    guided_grammar: None = None
    output_format: None = None
    text: None = None
    reasoning_effort: None = None
    reasoning: None = None
    thinking: None = None
    thinking_token_budget: None = None
    output_config: None = None

    @property
    def usage_unstated(self) -> bool:
        """Whether the answer is a stream, and nothing says if it should state its usage."""
        return self.stream is True and self.stream_options is msgspec.UNSET

    @property
    def form(self) -> Form:
        """What form the answer must have."""
        shape = self.response_format
        if (shape and shape.type != "text") or self._choice == _MUST_CALL:
            return Form.SHAPED
        return Form.STOPS if self.stop else Form.FREE

    @property
    def _choice(self) -> bytes:
        choice = self.tool_choice
        return _MAY_CALL if isinstance(choice, msgspec.UnsetType) else bytes(choice)

    @property
    def is_marked_elsewhere(self) -> bool:
        """Whether more than texts and addresses was cut out of what is read."""
        names = (self.model, self.user or "", *(turn.role for turn in self.messages))
        tools = bytes(self.tools)
        if _MARK_SIGN in tools and _MARK.encode() in tools:
            return True
        return any(name.startswith(_MARK) for name in names)

    def read(self, cut: Sequence[bytes]) -> PlainTexts | None:
        """Return all texts and images, of which those in `cut` were cut out.

        None if templates may drop some texts, or if there are very many.
        """
        if not 0 < len(self.messages) < _MOST_TURNS or self._choice not in _CHOICES:
            return None
        found, urls, calls, past = list[str](), list[str | _Url](), 0, 0
        for index, turn in enumerate(self.messages):
            content = turn.content
            if turn.tool_calls or turn.name:
                beside = turn.beside()
                if beside is None:
                    return None
                found += beside
                calls += len(turn.tool_calls or ())
            if isinstance(content, str):
                if content:
                    found.append(content)
            elif content:
                found += [part.text for part in content if part.text]
                urls += [
                    part.image_url
                    for part in content
                    if not isinstance(part.image_url, msgspec.UnsetType)
                ]
            if turn.role == "user":
                past = index
        for turn in self.messages[:past]:
            if turn.role == "assistant" and turn.may_hold_thought(cut):
                return None
        tools = _read_tools(bytes(self.tools))
        if len(found) > _MOST_TURNS or len(urls) > MAX_IMAGES or tools is None:
            return None
        if tools and self._choice not in _CALLING:
            return None
        texts = [_restored(text, cut) for text in found] if cut else list[str | bytes](found)
        images = tuple(_image(url, cut) for url in urls)
        return PlainTexts([*texts, *tools], tools, calls, images)

    def conversation(
        self, texts: list[str], read: Callable[[list[str], int], Prompt]
    ) -> Conversation:
        """Return the turns of these texts, without calls.

        `read` makes a prompt of texts and their turns.
        """
        counts = [_texts_in(turn) for turn in self.messages]
        marks = [Mark(before, 0, 0, 0) for before in accumulate(counts, initial=0)]

        def read_rest(place: int) -> Prompt:
            return read(texts[marks[place].texts : marks[-1].texts], len(counts) - place)

        roles = [turn.role for turn in self.messages]
        return Conversation(roles, marks, texts, [], [], [], [], read_rest)


def _texts_in(turn: _Turn) -> int:
    content, named = turn.content, bool(turn.name)
    if isinstance(content, str):
        return named + bool(content)
    return named + sum(bool(part.text) for part in content or ())


_MOST_BYTES: Final = 1 << 21  # so that little is read twice if it fails at its end
_MOST_TURNS: Final = MAX_ENTRIES // 4
_MAY_CALL: Final = b'"auto"'
_MUST_CALL: Final = b'"required"'
_CALLING: Final = (_MAY_CALL, _MUST_CALL)
_CHOICES: Final = (*_CALLING, b'"none"', b"null")
# Python's float: see fields.py.
_CHAT: Final = msgspec.json.Decoder(PlainChat, float_hook=float)
_TOOLS: Final = msgspec.json.Decoder(list[dict[str, object]], float_hook=float)
_NOT_READ: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_plain(
    body: bytes | bytearray | memoryview,
) -> tuple[PlainChat, Sequence[bytes]] | None:
    """Return a chat and what was cut out of it; None if the body is something else, or very long.

    What is built is bounded by the strings of the body: each turn and each text has two or more.
    """
    if len(body) >= 2 * _LONG_BYTES:
        pieces, cut = cut_long(body, _MARK.encode(), _LONG_BYTES)
        chat = _decode(b"".join(pieces)) if cut else None
        if chat is not None and not chat.is_marked_elsewhere:
            return chat, cut
        if cut and chat is None:
            return None
    chat = _decode(body)
    return None if chat is None else (chat, ())


def _decode(body: bytes | bytearray | memoryview) -> PlainChat | None:
    if len(body) > _MOST_BYTES or not has_few_strings(body):
        return None
    try:
        return _CHAT.decode(body)
    except _NOT_READ:
        return None


def _restored(text: str, cut: Sequence[bytes]) -> str | bytes:
    if not text.startswith(_MARK):
        return text
    found = cut[int(text.removeprefix(_MARK))]
    return found if len(found) > SAMPLE_BYTES else found.decode()


def _holds_thought(text: str | bytes) -> bool:
    if isinstance(text, bytes):
        return any(sign.encode() in text for sign in ENDS_OF_THOUGHT)
    return any(sign in text for sign in ENDS_OF_THOUGHT)


def _image(address: str | _Url, cut: Sequence[bytes]) -> Image:
    url = _restored(address.url if isinstance(address, _Url) else address, cut)
    if isinstance(url, bytes):
        head = url[:URL_CHARS]
        url = (head if head.isascii() else url).decode()
    return read_image(url)


def _read_tools(tools: bytes) -> list[str] | None:
    """Return tools as texts; None if the general reader must read them."""
    if tools == _NO_TOOLS:
        return []
    if not is_small(tools):
        return None
    try:
        found = write_compact(tools) or [as_text(tool) for tool in _TOOLS.decode(tools)]
    except _NOT_READ:
        return None
    return found if len(found) <= _MOST_TURNS else None
