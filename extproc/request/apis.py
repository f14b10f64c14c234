"""The APIs that vLLM serves: their paths, and what the fields of their bodies mean.

Source: vLLM 0.32, vllm/entrypoints/**/protocol.py and api_router.py.
"""

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Final
from urllib.parse import unquote

from extproc.request.prompt import PromptReader


class Endpoint(enum.Enum):
    """The APIs, by the shape of their bodies."""

    CHAT = "chat"
    OTHER_CHAT = "other_chat"  # Cohere's and batches: the fields of a chat, other answers
    COMPLETION = "completion"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDING = "embedding"  # also classify and pooling, which take one text at a time too
    SCORE = "score"  # and rerank
    GENERATE = "generate"  # token ids in, token ids out
    INVOCATIONS = "invocations"  # SageMaker's: the shape of any other API


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The fields of a body; fields that are not named here are not read."""

    prompt: Mapping[str, Callable[[PromptReader, object], None]]
    """The fields that hold the prompt, and how each is read."""
    prompts: tuple[str, ...] = ()
    """Prompt fields of which every entry is a prompt, and so a sequence, of its own."""
    conversations: tuple[str, ...] = ()
    """Prompt fields that hold one conversation, or a list of conversations."""
    tools: tuple[str, ...] = ("tools", "functions")
    """Prompt fields that hold tool definitions."""
    headings: tuple[str, ...] = ()
    """Prompt fields that become one message each."""
    opaque: tuple[str, ...] = ()
    """Fields that make the prompt differ from the body: part of it is elsewhere, or is cut."""
    options: str = ""
    """The field that holds limits and sequences; empty: the body itself."""
    limits: tuple[str, ...] = ()
    """The fields that limit the output; the first that is not null counts."""
    limit: int | None = None
    """The limit if none of those fields has a value."""
    floor: str = ""
    """The field that states the least output of one sequence."""
    sequences: tuple[str, ...] = ()
    """The fields that state how many outputs are generated for each prompt."""
    generates: bool = False
    usage_optional: bool = False
    """Whether a streamed answer states its usage only if `stream_options` asks for it."""
    stores: bool = False
    """Whether a pool may store an answer, which later requests then name by its id."""
    truncations: tuple[str, ...] = ()
    """Fields with which the pool may cut the prompt before it counts it."""
    truncation: str = ""
    """The field with which it does so unless its value is "disabled"."""
    truncating: tuple[str, ...] = ()
    """Fields of a body that is cut unless its `truncate` is "NONE" (Cohere)."""

    @property
    def fields(self) -> Iterator[str]:
        """All fields that are read."""
        own = (self.options,) if self.options else (*self.limits, self.floor, *self.sequences)
        return chain(
            (*self.prompt, *self.opaque, *own, *self.truncations, self.truncation),
            self.truncating,
        )


_SCORED: Final = ("text_1", "text_2", "data_1", "data_2", "query", "queries", "documents", "items")

_CHAT: Final = Api(
    prompt={
        "messages": PromptReader.read_conversation,
        "tools": PromptReader.read_tools,
        "functions": PromptReader.read_tools,
        "documents": PromptReader.read_documents,
        "response_format": PromptReader.read_schema,
        "chat_template": PromptReader.read_template,
        "chat_template_kwargs": PromptReader.read_arguments,
    },
    conversations=("messages",),
    opaque=("truncate_prompt_tokens",),
    limits=("max_completion_tokens", "max_tokens"),
    sequences=("n", "best_of"),
    generates=True,
)

APIS: Final[Mapping[Endpoint, Api]] = {
    Endpoint.CHAT: replace(_CHAT, floor="min_tokens", usage_optional=True),
    Endpoint.OTHER_CHAT: _CHAT,
    Endpoint.COMPLETION: Api(
        prompt={"prompt": PromptReader.read, "suffix": PromptReader.read_text},
        prompts=("prompt",),
        opaque=("prompt_embeds", "truncate_prompt_tokens"),
        limits=("max_tokens",),
        limit=16,  # the API's own default, for null too
        floor="min_tokens",
        sequences=("n", "best_of"),
        generates=True,
        usage_optional=True,
    ),
    Endpoint.RESPONSES: Api(
        prompt={
            "instructions": PromptReader.read_text,
            "previous_input_messages": PromptReader.read,
            "input": PromptReader.read_conversation,
            "tools": PromptReader.read_tools,
            "text": PromptReader.read_schema,
            "chat_template": PromptReader.read_template,
            "chat_template_kwargs": PromptReader.read_arguments,
        },
        conversations=("input",),
        headings=("instructions",),
        opaque=("previous_response_id",),
        limits=("max_output_tokens",),
        truncation="truncation",
        generates=True,
        stores=True,
    ),
    Endpoint.MESSAGES: Api(
        prompt={
            "system": PromptReader.read,
            "messages": PromptReader.read_conversation,
            "tools": PromptReader.read_tools,
            "output_config": PromptReader.read_schema,
        },
        conversations=("messages",),
        headings=("system",),
        limits=("max_tokens",),
        generates=True,
    ),
    Endpoint.EMBEDDING: Api(
        prompt={
            "input": PromptReader.read,
            "messages": PromptReader.read_conversation,
            "texts": PromptReader.read,
            "inputs": PromptReader.read,
            "images": PromptReader.read_images,
            "chat_template": PromptReader.read_template,
            "chat_template_kwargs": PromptReader.read_arguments,
        },
        prompts=("input", "texts", "inputs", "images"),
        conversations=("messages",),
        truncations=("truncate_prompt_tokens",),
        truncating=("texts", "inputs", "images"),
    ),
    Endpoint.SCORE: Api(
        prompt={
            "instruction": PromptReader.read_text,
            **dict.fromkeys(_SCORED, PromptReader.read),
            "chat_template": PromptReader.read_template,
            "chat_template_kwargs": PromptReader.read_arguments,
        },
        prompts=_SCORED,
        truncations=("truncate_prompt_tokens", "max_tokens_per_query", "max_tokens_per_doc"),
    ),
    Endpoint.GENERATE: Api(
        prompt={"token_ids": PromptReader.read},
        prompts=("token_ids",),
        options="sampling_params",
        opaque=("features", "content_parts"),
        limits=("max_tokens",),
        floor="min_tokens",
        sequences=("n",),
        generates=True,
    ),
}

# vLLM tries the shapes in this order (serve/sagemaker/api_router.py).
_INVOCATIONS: Final = (
    (("messages",), Endpoint.CHAT),
    (("prompt",), Endpoint.COMPLETION),
    (("input",), Endpoint.EMBEDDING),
    (_SCORED, Endpoint.SCORE),
)

# The path that a body was probably sent to, by the fields that only its API has. The first counts.
_TYPICAL: Final = (
    (("messages",), "/v1/chat/completions"),
    (("prompt",), "/v1/completions"),
    (("encoding_format", "dimensions", "truncate_prompt_tokens"), "/v1/embeddings"),
    (("input",), "/v1/responses"),
    (("query", "queries"), "/v1/rerank"),
    (_SCORED, "/v1/score"),
    (("token_ids",), "/inference/v1/generate"),
)

# Matched at the end of the path: a gateway may serve an API under any prefix.
_PATHS: Final[Mapping[str, Endpoint]] = {
    "chat/completions": Endpoint.CHAT,
    "chat/completions/batch": Endpoint.OTHER_CHAT,
    "cohere/v2/chat": Endpoint.OTHER_CHAT,
    "completions": Endpoint.COMPLETION,
    "responses": Endpoint.RESPONSES,
    "messages": Endpoint.MESSAGES,
    "embeddings": Endpoint.EMBEDDING,
    "v2/embed": Endpoint.EMBEDDING,
    "classify": Endpoint.EMBEDDING,
    "pooling": Endpoint.EMBEDDING,
    "score": Endpoint.SCORE,
    "rerank": Endpoint.SCORE,
    "generative_scoring": Endpoint.SCORE,
    "inference/v1/generate": Endpoint.GENERATE,
    "invocations": Endpoint.INVOCATIONS,
}
_LONGEST: Final = 3  # segments
_SHORT_PATH: Final = 256  # what is found of longer ones is not kept


def endpoint(path: str) -> Endpoint | None:
    """Return the API of a `:path`, or None if its requests are not read.

    Escapes are decoded as vLLM does, the query and trailing slashes are ignored, and any prefix
    before the API's own path is accepted. /tokenize and its like are not read: they generate
    nothing, and what they say of the window should be the same for every prompt.
    """
    return _known(path) if len(path) <= _SHORT_PATH else _endpoint(path)


def _endpoint(path: str) -> Endpoint | None:
    plain = unquote(path.partition("?")[0])
    segments = plain.rstrip("/").rsplit("/", _LONGEST)[-_LONGEST:]
    for start in range(len(segments)):
        if known := _PATHS.get("/".join(segments[start:])):
            return known
    return None


_known = lru_cache(_endpoint)


def path_regex(*endpoints: Endpoint) -> str:
    """Return a regular expression of the paths of these APIs, under any prefix.

    For Envoy, which matches the whole of a path that is decoded and has no query, and which limits
    the size of an expression: a path that ends with another is left out.
    """
    paths = [path for path, kind in _PATHS.items() if kind in endpoints]
    ends = [path for path in paths if not any(path.endswith(f"/{other}") for other in paths)]
    return f".*/({'|'.join(ends)})/*"


def generating_paths() -> tuple[str, ...]:
    """Return the paths at which OpenAI's and Anthropic's clients ask for generated answers."""
    kinds = (Endpoint.CHAT, Endpoint.COMPLETION, Endpoint.RESPONSES, Endpoint.MESSAGES)
    return tuple(f"/v1/{path}" for path, kind in _PATHS.items() if kind in kinds)


def typical_path(body: Mapping[str, object]) -> str:
    """Guess the path that a body was sent to, from its fields; a chat if they do not tell."""
    known = (path for fields, path in _TYPICAL if not body.keys().isdisjoint(fields))
    return next(known, "/v1/chat/completions")


def api_of(endpoint: Endpoint, body: Mapping[str, object]) -> Api:
    """Return the API of a body that was sent to an endpoint."""
    if endpoint is not Endpoint.INVOCATIONS:
        return APIS[endpoint]
    known = (kind for fields, kind in _INVOCATIONS if not body.keys().isdisjoint(fields))
    return APIS[next(known, Endpoint.CHAT)]
