"""Gather what a prompt is made of, wherever in a body it stands: texts, ids, tools, media.

The rule it keeps: a key says what its value is, and what is not of the type that the key wants is
passed over. No walk recurses, and base64 is never text.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from extproc.request.image import Image, read_image

MAX_IMAGES: Final = 256
"""How many images are looked at; more are not counted."""

_JSON: Final = msgspec.json.Encoder()


class Prompt:
    """What was found so far; each `read` method adds what it finds in one field of a body.

    Roles and the ids of tool calls are not counted: with a chat template they cost about the same
    for each message and each call.
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
        """Read a text, and nothing else."""
        if isinstance(value, str) and value:
            self.texts.append(value)

    def read_json(self, value: object) -> None:
        """Read a text, or what a template renders as JSON, at the length of compact JSON."""
        if isinstance(value, dict | list):
            self.texts.append(_JSON.encode(value).decode())
        else:
            self.read_text(value)

    def read_tools(self, value: object) -> None:
        """Read a list of tool or function definitions."""
        for tool in value if isinstance(value, list) else ():
            self.read_tool(tool)

    def read_documents(self, value: object) -> None:
        """Read a list of documents, which a template that knows them renders field by field."""
        for document in value if isinstance(value, list) else ():
            self.read_json(document)

    def read_schema(self, value: object) -> None:
        """Read the JSON schema of a response format, wherever in it the API has its place."""
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
        """Read one image, as a URL or a source (`read_image` in image.py says which)."""
        if len(self.images) < MAX_IMAGES:
            self.images.append(read_image(value))

    def read_audio(self, _: object) -> None:
        """Count a recording, whatever it is."""
        self.audios += 1

    def read_video(self, _: object) -> None:
        """Count a video, whatever it is."""
        self.videos += 1

    def read_call(self, arguments: object) -> None:
        """Read the arguments of a tool call; its name is read where it stands."""
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
_READERS: Final[Mapping[str, Callable[[Prompt, object], None]]] = {
    "text": Prompt.read_text,
    "name": Prompt.read_text,
    "reasoning": Prompt.read_text,
    "thinking": Prompt.read_text,
    "refusal": Prompt.read_text,
    "tool_name": Prompt.read_text,
    "tool_plan": Prompt.read_text,
    "document": Prompt.read_json,
    "arguments": Prompt.read_call,
    "input": Prompt.read_call,
    "tools": Prompt.read_tools,
    "definition": Prompt.read_tool,
    "image_url": Prompt.read_image,
    "image_embeds": Prompt.read_image,
    "source": Prompt.read_image,
    "input_audio": Prompt.read_audio,
    "audio_url": Prompt.read_audio,
    "audio_embeds": Prompt.read_audio,
    "video_url": Prompt.read_video,
    "video_embeds": Prompt.read_video,
}
