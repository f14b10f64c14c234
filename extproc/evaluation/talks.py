"""Conversations that go on: each request repeats the earlier turns and their answers."""

import math
import random
from dataclasses import dataclass, field
from typing import Final

from extproc.evaluation.cases import Draft
from extproc.evaluation.requests import Writer

_KIND: Final = "conversation"


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkShape:
    """How conversations are. Ranges are of tokens, log-uniform.

    going_on: the share that has another turn. instructions: of each of the `shared` system prompts.
    """

    going_on: float
    instructed: float
    instructions: tuple[int, int] = (500, 3000)
    shared: int = 20
    asked: tuple[int, int] = (10, 1500)
    answered: tuple[int, int] = (20, 1200)
    open: int = 100
    most: int = 60_000


CONVERSATIONS: Final = TalkShape(going_on=0.8, instructed=0.5)
INSTRUCTIONS: Final = TalkShape(going_on=0.0, instructed=1.0, asked=(10, 400), answered=(20, 400))


@dataclass(slots=True)
class _Talk:
    messages: list[dict[str, object]] = field(default_factory=list)
    tokens: int = 0

    def say(self, role: str, text: tuple[str, int]) -> None:
        self.messages = [*self.messages, {"role": role, "content": text[0]}]
        self.tokens += text[1]


class Talks:
    """Open conversations, of which any may go on next."""

    def __init__(self, shape: TalkShape) -> None:
        self._shape = shape
        self._talks: list[_Talk] = []
        self._shared: list[tuple[str, int]] = []

    def go_on(self, rng: random.Random, writer: Writer) -> Draft:
        """Return the next request of any conversation, an old or a new one."""
        shape = self._shape
        is_new = len(self._talks) < shape.open and rng.random() < max(0.1, 1.0 - shape.going_on)
        talk = self._begin(rng, writer) if is_new or not self._talks else rng.choice(self._talks)
        talk.say("user", writer.text(rng, _log_uniform(rng, shape.asked)))
        answer = writer.text(rng, _log_uniform(rng, shape.answered))
        added = writer.template.tokens(len(talk.messages), 0)
        body = {"messages": talk.messages, **writer.limits(rng, answer[1])}
        draft = Draft(_KIND, body, talk.tokens + added, answer[1], repeats=True)
        talk.say("assistant", answer)
        if rng.random() > shape.going_on or talk.tokens > shape.most:
            self._talks.remove(talk)
        return draft

    def _begin(self, rng: random.Random, writer: Writer) -> _Talk:
        shape, talk = self._shape, _Talk()
        if not self._shared:
            sizes = [_log_uniform(rng, shape.instructions) for _ in range(shape.shared)]
            self._shared = [writer.text(rng, size) for size in sizes]
        if rng.random() < shape.instructed:
            talk.say("system", rng.choice(self._shared))
        self._talks.append(talk)
        return talk


def _log_uniform(rng: random.Random, span: tuple[int, int]) -> int:
    least, most = span
    return int(math.exp(rng.uniform(math.log(least), math.log(most))))
