"""The APIs that vLLM serves: by which path one is asked, and what its fields mean.

Source: vLLM 0.32, vllm/entrypoints/**/protocol.py and api_router.py.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from extproc.request.prompt import Prompt


class Endpoint(enum.Enum):
    """What a request asks for; one API each."""

    CHAT = "chat"
    OTHER_CHAT = "other_chat"  # Cohere's, and batches: a chat's fields, other answers
    COMPLETION = "completion"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDING = "embedding"  # and what else pools one text at a time: classify, pooling
    SCORE = "score"  # and rerank
    TOKENIZE = "tokenize"  # and what else only renders a prompt or counts it, of any API


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The fields of a body; what is not named here is not read."""

    prompt: Mapping[str, Callable[[Prompt, object], None]]
    """The fields that hold the prompt, and how each is read."""
    entries: tuple[str, ...]
    """Those whose entries are messages, items, prompts; the longest counts."""
    headings: tuple[str, ...] = ()
    """Those that become a message of their own."""
    opaque: tuple[str, ...] = ()
    """Those with which the prompt is not what the body holds: some of it is elsewhere, or cut."""
    limits: tuple[str, ...] = ()
    """The fields that limit the output; the first that is not null holds."""
    limit: int | None = None
    """What holds where no such field is there at all."""
    sequences: tuple[str, ...] = ()
    """The fields that say how many outputs are made."""
    generates: bool = False
    usage_optional: bool = False
    """Whether a streamed answer tells its usage only where `stream_options` asks for it."""


_SCORED: Final = ("text_1", "text_2", "data_1", "data_2", "query", "queries", "documents", "items")

_CHAT: Final = Api(
    prompt={
        "messages": Prompt.read,
        "tools": Prompt.read_tools,
        "functions": Prompt.read_tools,
        "documents": Prompt.read_documents,
        "response_format": Prompt.read_schema,
    },
    entries=("messages",),
    opaque=("truncate_prompt_tokens",),
    limits=("max_completion_tokens", "max_tokens"),
    sequences=("n", "best_of"),
    generates=True,
)

APIS: Final[Mapping[Endpoint, Api]] = {
    Endpoint.CHAT: replace(_CHAT, usage_optional=True),
    Endpoint.OTHER_CHAT: _CHAT,
    Endpoint.COMPLETION: Api(
        prompt={"prompt": Prompt.read, "suffix": Prompt.read_text},
        entries=("prompt",),
        opaque=("prompt_embeds", "truncate_prompt_tokens"),
        limits=("max_tokens",),
        limit=16,  # the API's own default; null, however, is no limit
        sequences=("n", "best_of"),
        generates=True,
        usage_optional=True,
    ),
    Endpoint.RESPONSES: Api(
        prompt={
            "instructions": Prompt.read_text,
            "previous_input_messages": Prompt.read,
            "input": Prompt.read,
            "tools": Prompt.read_tools,
            "text": Prompt.read_schema,
        },
        entries=("input",),
        headings=("instructions",),
        opaque=("previous_response_id",),
        limits=("max_output_tokens",),
        generates=True,
    ),
    Endpoint.MESSAGES: Api(
        prompt={
            "system": Prompt.read,
            "messages": Prompt.read,
            "tools": Prompt.read_tools,
            "output_config": Prompt.read_schema,
        },
        entries=("messages",),
        headings=("system",),
        limits=("max_tokens",),
        generates=True,
    ),
    Endpoint.EMBEDDING: Api(
        prompt={
            "input": Prompt.read,
            "messages": Prompt.read,
            "texts": Prompt.read,
            "inputs": Prompt.read,
            "images": Prompt.read_images,
        },
        entries=("input", "messages", "texts", "inputs", "images"),
    ),
    Endpoint.SCORE: Api(
        prompt={"instruction": Prompt.read_text, **dict.fromkeys(_SCORED, Prompt.read)},
        entries=_SCORED,
    ),
    Endpoint.TOKENIZE: Api(
        prompt={
            "system": Prompt.read,
            "instructions": Prompt.read_text,
            "messages": Prompt.read,
            "prompt": Prompt.read,
            "input": Prompt.read,
            "suffix": Prompt.read_text,
            "tools": Prompt.read_tools,
            "functions": Prompt.read_tools,
            "documents": Prompt.read_documents,
        },
        entries=("messages", "prompt", "input"),
        headings=("system", "instructions"),
    ),
}

# By the end of the path, so that a gateway may serve an API under any prefix.
_PATHS: Final[Mapping[str, Endpoint]] = {
    "chat/completions": Endpoint.CHAT,
    "chat/completions/batch": Endpoint.OTHER_CHAT,
    "chat/completions/render": Endpoint.TOKENIZE,
    "cohere/v2/chat": Endpoint.OTHER_CHAT,
    "v2/chat/render": Endpoint.TOKENIZE,
    "completions": Endpoint.COMPLETION,
    "completions/render": Endpoint.TOKENIZE,
    "responses": Endpoint.RESPONSES,
    "responses/render": Endpoint.TOKENIZE,
    "messages": Endpoint.MESSAGES,
    "messages/render": Endpoint.TOKENIZE,
    "messages/count_tokens": Endpoint.TOKENIZE,
    "embeddings": Endpoint.EMBEDDING,
    "v2/embed": Endpoint.EMBEDDING,
    "classify": Endpoint.EMBEDDING,
    "pooling": Endpoint.EMBEDDING,
    "score": Endpoint.SCORE,
    "rerank": Endpoint.SCORE,
    "generative_scoring": Endpoint.SCORE,
    "tokenize": Endpoint.TOKENIZE,
}
_LONGEST: Final = 3  # segments


def endpoint(path: str) -> Endpoint | None:
    """Return what a `:path` asks for, or None where it is nothing that is read.

    The query is cut, as are slashes at the end; any prefix before the API's own path is accepted.
    """
    segments = path.partition("?")[0].rstrip("/").rsplit("/", _LONGEST)[-_LONGEST:]
    for start in range(len(segments)):
        if known := _PATHS.get("/".join(segments[start:])):
            return known
    return None
