"""A prompt: its texts, token ids, tools and media, collected from anywhere in a body.

Text that some chat templates drop is collected apart, by its kind: reasoning of earlier turns,
response schemas, documents, tools that the request forbids to call, and template arguments.

Invariants: a key decides how its value is read, and a value of another type is skipped. Walks are
bounded, and base64 never counts as text.
"""

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from extproc.request.fields import MAX_ENTRIES, TokenIds, TooManyNodesError
from extproc.request.image import Image, read_image
from extproc.request.sample import as_str

MAX_IMAGES: Final = 256
"""The most images whose sizes are read; further ones count as having the same sizes."""

_JSON: Final = msgspec.json.Encoder()
ENDS_OF_THOUGHT: Final = ("</think>", "[/THINK]")


class Optional(enum.Enum):
    """Kinds of text that a chat template may drop."""

    SCHEMA = "schema"
    PAST_REASONING = "past_reasoning"
    DOCUMENTS = "documents"
    UNUSED_TOOLS = "unused_tools"
    TEMPLATE_ARGUMENTS = "template_arguments"


class Mark(NamedTuple):
    """How much had been read before a turn."""

    texts: int
    thoughts: int
    images: int
    unsized: int


class TextSample(NamedTuple):
    """Some text: its UTF-8 bytes, and a sample of it."""

    text_bytes: int
    sample: bytes


class Prompt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    optional: Mapping[Optional, TextSample] = msgspec.field(default_factory=dict)
    """Text that chat templates may drop; it is not part of `sample`."""
    written: Sequence[str | bytes] = ()
    """The texts themselves, kept no longer than the request is decided; long ones may be UTF-8."""
    definitions: Sequence[str] = ()
    """The definitions of tools; they are among the texts."""

    @property
    def has_media(self) -> bool:
        """Whether it has images, audio or video."""
        return bool(self.images or self.audios or self.videos)

    @property
    def texts(self) -> list[str]:
        """The texts themselves."""
        return [as_str(text) for text in self.written]


class OpaquePartError(Exception):
    """A part of the prompt whose tokens its bytes do not show, such as embeddings."""


class NodeBudget:
    """How many entries of lists, and objects, may still be looked at over all prompts of a body."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_ENTRIES

    def take(self, count: int) -> None:
        """Use some. Raises TooManyNodesError."""
        self._left -= count
        if self._left < 0:
            raise TooManyNodesError


class PromptReader:
    """Collects one prompt; each `read` method adds what one field of a body holds.

    Roles and the ids of tool calls are not counted: a chat template makes them cost about the same
    for every message and every call. Reading raises TooManyNodesError and OpaquePartError.
    """

    __slots__ = (
        "_marks",
        "_nodes",
        "_past",
        "_past_answer",
        "audios",
        "definitions",
        "images",
        "marks",
        "optional",
        "texts",
        "token_ids",
        "tools",
        "unsized",
        "videos",
    )

    def __init__(self, nodes: NodeBudget | None = None, *, marks: bool = False) -> None:
        self._nodes = nodes or NodeBudget()
        self._marks = marks
        self.texts: list[str] = []
        self.definitions: list[str] = []  # of tools; they are among the texts
        self.optional: dict[Optional, list[str]] = {}
        self._past = False  # within a turn before the last one of the user
        self._past_answer = False  # and that turn is the assistant's
        self.token_ids = 0
        self.tools = 0
        self.images: list[Image] = []
        self.audios = 0
        self.videos = 0
        self.unsized: list[object] = []  # media whose size is unknown, as they were sent
        self.marks: list[Mark] = []  # before each turn of a conversation, if they are wanted

    def read(self, value: object) -> None:
        """Read a text, token ids, a message, an item, a content part, or lists of them."""
        todo = [value]
        while todo:
            node = todo.pop()
            if isinstance(node, str):
                self.read_text(node)
            elif isinstance(node, TokenIds):
                self.token_ids += node.count
            elif isinstance(node, dict):
                self._read_node(node, todo)
            elif isinstance(node, list):
                if node and isinstance(node[0], int | float):
                    self.token_ids += len(node)
                else:
                    self._nodes.take(len(node))
                    todo.extend(reversed(node))

    def read_conversation(self, value: object) -> None:
        """Read a conversation, or several: what comes before the last user's turn is past."""
        turns = value if isinstance(value, list) else [value]
        self._nodes.take(len(turns))
        last = max((i for i, turn in enumerate(turns) if _is_users(turn)), default=0)
        for index, turn in enumerate(turns):
            self._mark()
            self._past = index < last
            self._past_answer = self._past and _is_assistants(turn)
            if isinstance(turn, list):
                self.read_conversation(turn)
            else:
                self.read(turn)
        self._past = self._past_answer = False
        self._mark()

    def _mark(self) -> None:
        if self._marks:
            thoughts = self.optional.get(Optional.PAST_REASONING, ())
            counts = map(len, (self.texts, thoughts, self.images, self.unsized))
            self.marks.append(Mark(*counts))

    def _read_node(self, node: dict[str, object], todo: list[object]) -> None:
        self._nodes.take(1)
        if node.get("type") == "prompt_embeds":
            raise OpaquePartError
        if self._past and node.get("type") == "reasoning":  # an item of the Responses API
            for text in _texts_of(node):
                self.read_reasoning(text)
        else:
            self._read_keys(node, todo)

    def _read_keys(self, node: dict[str, object], todo: list[object]) -> None:
        for key, value in node.items():
            if key in _WITHIN:
                todo.append(value)
            elif reader := _READERS.get(key):
                reader(self, value)
        # vLLM: chat_completion/protocol.py, _normalize_messages_before: the old name of it.
        if "reasoning_content" in node and node.get("reasoning") is None:
            self.read_reasoning(node["reasoning_content"])

    def read_text(self, value: object) -> None:
        """Read a text; skip any other value.

        Templates of thinking models cut an earlier answer up to the last sign of the end of a
        thought: Qwen 3, DeepSeek R1 and V3.1, GLM 4.5.
        """
        if not isinstance(value, str):
            return
        if self._past_answer and (end := _end_of_thought(value)):
            self.read_optional(Optional.PAST_REASONING, value[:end])
            value = value[end:]
        if value:
            self.texts.append(value)

    def read_json(self, value: object) -> None:
        """Read a text, or a value that a template renders as JSON; it counts as compact JSON."""
        self.read_text(as_text(value))

    def read_optional(self, kind: Optional, value: object) -> None:
        """Read a text or a JSON value that templates may drop."""
        if text := as_text(value):
            self.optional.setdefault(kind, []).append(text)

    def read_reasoning(self, value: object) -> None:
        """Read reasoning: templates keep that of the current turn, and mostly drop the rest."""
        if self._past:
            self.read_optional(Optional.PAST_REASONING, value if isinstance(value, str) else "")
        else:
            self.read_text(value)

    def read_arguments(self, value: object) -> None:
        """Read arguments of the chat template, which may be flags or whole documents.

        The instruction of a scoring model is one of them; templates that take it render it.
        """
        if isinstance(value, dict) and isinstance(value.get("instruction"), str):
            self.read_text(value["instruction"])
            value = {name: each for name, each in value.items() if name != "instruction"}
        self.read_optional(Optional.TEMPLATE_ARGUMENTS, value)

    def read_template(self, value: object) -> None:
        """Read a chat template of the request's own, part of which may be text for the prompt."""
        self.read_optional(Optional.TEMPLATE_ARGUMENTS, value if isinstance(value, str) else "")

    def read_tools(self, value: object) -> None:
        """Read a list of tool or function definitions."""
        for tool in value if isinstance(value, list) else ():
            self.read_tool(tool)

    def read_documents(self, value: object) -> None:
        """Read a list of documents; templates that support them render each field."""
        for document in value if isinstance(value, list) else ():
            self.read_optional(Optional.DOCUMENTS, document)

    def read_unused_tools(self, value: object) -> None:
        """Read a list of tools that the model must not call."""
        for tool in value if isinstance(value, list) else ():
            self.read_optional(Optional.UNUSED_TOOLS, tool)

    def read_schema(self, value: object) -> None:
        """Read the JSON schema of a response format, in any place that an API has for it."""
        match value:
            case {"json_schema": dict(schema)} | {"schema": dict(schema)}:
                self.read_optional(Optional.SCHEMA, schema)
            case {"format": {"schema": dict(schema)}}:
                self.read_optional(Optional.SCHEMA, schema)

    def read_images(self, value: object) -> None:
        """Read a list of image URLs."""
        images = value if isinstance(value, list) else []
        self._nodes.take(len(images))
        for image in images:
            self.read_image(image)

    def read_image(self, value: object) -> None:
        """Read one image: a URL or a source, see `image.read_image`."""
        count = len(self.images)
        known = self.images[count % MAX_IMAGES] if count >= MAX_IMAGES else None
        image = known or read_image(value)
        self.images.append(image)
        if not image.width or not image.height:
            self.unsized.append(value)

    def read_source(self, value: object) -> None:
        """Read the source of an Anthropic block: an image, a document's text, or an address."""
        match value:
            case str(text) | {"type": "text", "data": str(text)}:
                self.read_text(text)
            case {"type": "content", "content": content}:
                self.read(content)
            case _:
                self.read_image(value)

    def read_audio(self, value: object) -> None:
        """Count an audio input."""
        self.audios += 1
        self.unsized.append(value)

    def read_video(self, value: object) -> None:
        """Count a video input."""
        self.videos += 1
        self.unsized.append(value)

    def read_call(self, arguments: object) -> None:
        """Read the arguments of a tool call; `name` is a key of its own."""
        self.tools += 1
        self.read_json(arguments)

    def read_tool(self, definition: object) -> None:
        """Read one tool definition."""
        self.tools += 1
        text = as_text(definition)
        self.definitions.append(text)
        self.read_text(text)


def as_text(value: object) -> str:
    """Return a text, or a value as compact JSON; empty for any other value."""
    if isinstance(value, dict | list):
        return _JSON.encode(value).decode()
    return value if isinstance(value, str) else ""


def _texts_of(item: dict[str, object]) -> Iterator[object]:
    for field in ("content", "summary"):
        parts = item.get(field)
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                yield part.get("text")


def _end_of_thought(text: str) -> int:
    return max(at + len(sign) if (at := text.rfind(sign)) >= 0 else 0 for sign in ENDS_OF_THOUGHT)


def _is_assistants(turn: object) -> bool:
    return isinstance(turn, dict) and turn.get("role") == "assistant"


def _is_users(turn: object) -> bool:
    """Return whether a turn is the user's own; Anthropic sends tool results in the user's role."""
    match turn:
        case {"role": "user", "content": [{"type": "tool_result"}, *_]}:
            return False
        case {"role": "user"}:
            return True
        case _:
            return False


# vLLM 0.32: renderers/chat_utils.py (MM_PARSER_MAP, ConversationMessage), anthropic/protocol.py
# (AnthropicContentBlock), openai/responses/utils.py (_construct_message_from_response_item).
_WITHIN: Final = frozenset(
    {"content", "function", "function_call", "output", "summary", "tool", "tool_calls"}
)
_READERS: Final[Mapping[str, Callable[[PromptReader, object], None]]] = {
    "text": PromptReader.read_text,
    "name": PromptReader.read_text,
    "reasoning": PromptReader.read_reasoning,
    "thinking": PromptReader.read_reasoning,
    "refusal": PromptReader.read_text,
    "tool_name": PromptReader.read_text,
    "tool_plan": PromptReader.read_text,
    "document": PromptReader.read_json,
    "arguments": PromptReader.read_call,
    "input": PromptReader.read_call,
    "tools": PromptReader.read_tools,
    "definition": PromptReader.read_tool,
    "image_url": PromptReader.read_image,
    "image_embeds": PromptReader.read_image,
    "source": PromptReader.read_source,
    "input_audio": PromptReader.read_audio,
    "audio_url": PromptReader.read_audio,
    "audio_embeds": PromptReader.read_audio,
    "video_url": PromptReader.read_video,
    "video_embeds": PromptReader.read_video,
}
