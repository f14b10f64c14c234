"""One prompt and its answer on the way through an engine, and what happens to it there."""

import enum
from typing import NamedTuple


class NeverFitsError(ValueError):
    """The sequence is longer than the window or the whole KV cache, so no schedule can hold it."""


class EventKind(enum.Enum):
    """What happened to a sequence."""

    ADMITTED = "admitted"  # its prefill begins, for the first time or again
    PREEMPTED = "preempted"  # its blocks are gone; it waits at the front of the queue
    FIRST_TOKEN = "first_token"  # noqa: S105 (not a password)
    FINISHED = "finished"  # all of its output tokens are there


class State(enum.Enum):
    """Where a sequence is."""

    NEW = enum.auto()
    WAITING = enum.auto()
    RUNNING = enum.auto()
    OVER = enum.auto()


class Sequence:
    """One prompt and the answer that it will get; the caller keeps it to know it in the events.

    Both counts must be at least 1. submit() cuts output_tokens to what the window holds, as vLLM
    ends a sequence that has max_model_len tokens. prefix: ids of the prompt's leading parts of 512
    tokens, equal where the text is equal up to there. The rest is the engine's notes.
    """

    __slots__ = (
        "computed",  # tokens with a KV entry, while it prefills
        "end",  # the iteration before which its last token is there; -1 unless it decodes
        "output_tokens",
        "prefix",
        "produced",  # output tokens so far, unless it decodes: see Engine.generated
        "prompt_tokens",
        "reused",  # prompt tokens that were cached when it was last admitted
        "serial",  # order of submission
        "shared",  # parts of the prefix that it holds in the prefix cache
        "state",
    )

    def __init__(
        self, prompt_tokens: int, output_tokens: int, prefix: tuple[int, ...] = ()
    ) -> None:
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError("a sequence has at least one prompt token and one output token")
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.prefix = prefix
        self.state = State.NEW
        self.computed = self.produced = self.serial = self.shared = self.reused = 0
        self.end = -1


class Event(NamedTuple):
    """Something that happened at a time in nanoseconds; events come in the order of time."""

    at_ns: int
    kind: EventKind
    sequence: Sequence
