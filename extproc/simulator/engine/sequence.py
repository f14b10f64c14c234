"""One sequence of an engine, and the events that happen to it."""

import enum
from typing import NamedTuple


class NeverFitsError(ValueError):
    """The sequence exceeds the window or the whole KV cache, so it can never be scheduled."""


class EventKind(enum.Enum):
    """What happened to a sequence."""

    ADMITTED = "admitted"  # its prefill begins, for the first time or after a preemption
    PREEMPTED = "preempted"  # it lost its blocks and waits at the front of the queue
    FIRST_TOKEN = "first_token"  # noqa: S105 (not a password)
    FINISHED = "finished"  # it has all of its output tokens


class State(enum.Enum):
    """Where a sequence is in its life."""

    NEW = enum.auto()
    WAITING = enum.auto()
    RUNNING = enum.auto()
    OVER = enum.auto()


class Sequence:
    """One prompt and the length of its answer, both at least 1 token; compared by identity.

    submit() limits output_tokens to what the window holds, as vLLM ends a sequence that has
    max_model_len tokens. prefix: ids of the leading 512-token parts of the prompt; two prompts
    share the ids up to where their text differs. All other attributes belong to the engine.
    """

    __slots__ = (
        "computed",  # tokens that have KV entries, during its prefill
        "end",  # count of iterations at which it has its last token; -1 unless it decodes
        "output_tokens",
        "prefix",
        "produced",  # output tokens so far, unless it decodes: see Engine.generated
        "prompt_tokens",
        "reused",  # prompt tokens that were cached when it was last admitted
        "serial",  # order of submission
        "shared",  # number of prefix parts that it holds in the prefix cache
        "state",
        "submitted_ns",  # the time at which the scheduler may first see it
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
        self.submitted_ns = 0
        self.end = -1


class Event(NamedTuple):
    """What happened to a sequence, at a time in nanoseconds; events are ordered by time."""

    at_ns: int
    kind: EventKind
    sequence: Sequence
