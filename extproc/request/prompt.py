"""Collect the texts, token ids, tools and media of a prompt from anywhere in a body.

Invariants: a key decides how its value is read, and a value of another type is skipped. No walk
recurses, and base64 never counts as text.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from extproc.request.fields import TokenIds
from extproc.request.image import Image, read_image

MAX_IMAGES: Final = 256
"""The most images that are read; further ones are not counted."""

_JSON: Final = msgspec.json.Encoder()


class PromptReader:
    """Collects one prompt; each `read` method adds what one field of a body holds.

    Roles and the ids of tool calls are not counted: a chat template makes them cost about the same
    for every message and every call.
    """

    __slots__ = ("audios", "images", "texts", "token_ids", "tools", "videos")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.token_ids = 0
        self.tools = 0
        self.images: list[Image] = []
        self.audios = 0
        self.videos = 0

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
                self._read_keys(node, todo)
            elif isinstance(node, list):
                if node and isinstance(node[0], int | float):
                    self.token_ids += len(node)
                else:
                    todo.extend(reversed(node))

    def _read_keys(self, node: dict[str, object], todo: list[object]) -> None:
        for key, value in node.items():
            if key in _WITHIN:
                todo.append(value)
            elif reader := _READERS.get(key):
                reader(self, value)
        # vLLM: chat_completion/protocol.py, _normalize_messages_before: the old name of it.
        if "reasoning_content" in node and node.get("reasoning") is None:
            self.read_text(node["reasoning_content"])

    def read_text(self, value: object) -> None:
        """Read a text; skip any other value."""
        if isinstance(value, str) and value:
            self.texts.append(value)

    def read_json(self, value: object) -> None:
        """Read a text, or a value that a template renders as JSON; it counts as compact JSON."""
        if isinstance(value, dict | list):
            self.texts.append(_JSON.encode(value).decode())
        else:
            self.read_text(value)

    def read_tools(self, value: object) -> None:
        """Read a list of tool or function definitions."""
        for tool in value if isinstance(value, list) else ():
            self.read_tool(tool)

    def read_documents(self, value: object) -> None:
        """Read a list of documents; templates that support them render each field."""
        for document in value if isinstance(value, list) else ():
            self.read_json(document)

    def read_schema(self, value: object) -> None:
        """Read the JSON schema of a response format, in any place that an API has for it."""
        match value:
            case {"json_schema": dict(schema)} | {"schema": dict(schema)}:
                self.read_json(schema)
            case {"format": {"schema": dict(schema)}}:
                self.read_json(schema)

    def read_images(self, value: object) -> None:
        """Read a list of image URLs."""
        for image in value if isinstance(value, list) else ():
            self.read_image(image)

    def read_image(self, value: object) -> None:
        """Read one image: a URL or a source, see `image.read_image`."""
        if len(self.images) < MAX_IMAGES:
            self.images.append(read_image(value))

    def read_audio(self, _: object) -> None:
        """Count an audio input."""
        self.audios += 1

    def read_video(self, _: object) -> None:
        """Count a video input."""
        self.videos += 1

    def read_call(self, arguments: object) -> None:
        """Read the arguments of a tool call; `name` is a key of its own."""
        self.tools += 1
        self.read_json(arguments)

    def read_tool(self, definition: object) -> None:
        """Read one tool definition."""
        self.tools += 1
        self.read_json(definition)


# vLLM 0.32: renderers/chat_utils.py (MM_PARSER_MAP, ConversationMessage), anthropic/protocol.py
# (AnthropicContentBlock), openai/responses/utils.py (_construct_message_from_response_item).
_WITHIN: Final = frozenset(
    {"content", "function", "function_call", "output", "summary", "tool", "tool_calls"}
)
_READERS: Final[Mapping[str, Callable[[PromptReader, object], None]]] = {
    "text": PromptReader.read_text,
    "name": PromptReader.read_text,
    "reasoning": PromptReader.read_text,
    "thinking": PromptReader.read_text,
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
    "source": PromptReader.read_image,
    "input_audio": PromptReader.read_audio,
    "audio_url": PromptReader.read_audio,
    "audio_embeds": PromptReader.read_audio,
    "video_url": PromptReader.read_video,
    "video_embeds": PromptReader.read_video,
}
