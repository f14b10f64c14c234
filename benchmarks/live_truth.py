"""What became of a request of benchmarks.live_vllm, known without the service."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from extproc.routing.pools import Reason


@dataclass(frozen=True, slots=True)
class Sent:
    """A request, and the tokens of its prompt as the larger server counts them."""

    body: dict[str, object]
    prompt_tokens: int

    @property
    def max_tokens(self) -> int:
        """The output limit that it states."""
        return int(str(self.body["max_tokens"]))

    @property
    def wants_usage(self) -> bool:
        """Whether the client is to get a usage."""
        return not self.body.get("stream") or "stream_options" in self.body


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Record(msgspec.Struct):
    """An answer, or a chunk of one."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    prompt_token_ids: list[int] | None = None


_RECORD: Final = msgspec.json.Decoder(_Record)


@dataclass(frozen=True, slots=True)
class Got:
    """What a client got.

    usage: prompt and completion tokens, where it is stated. fault: why the answer is not whole.
    """

    status: int
    pool: str = ""
    reason: str = ""
    is_whole: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = ""
    usage: tuple[int, int] | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a request, by the truth alone. short: the smaller window, in tokens."""

    sent: Sent
    got: Got
    short: int
    is_hint: bool
    went_short: bool
    """Whether the smaller pool was chosen, whichever answered."""

    @property
    def is_by_size(self) -> bool:
        """Whether its size decided: the service was too late, which it never judges."""
        return self.got.reason in ("", Reason.BUSY)

    @property
    def is_lost(self) -> bool:
        """Whether the client got no whole answer."""
        return not self.got.is_whole

    @property
    def is_altered(self) -> bool:
        """Whether the pool got another prompt than was sent, or the client another usage."""
        got, counts = self.got, (self.got.prompt_tokens, self.got.completion_tokens)
        expected = counts if self.sent.wants_usage else None
        return got.prompt_tokens != self.sent.prompt_tokens or got.usage != expected

    @property
    def _used(self) -> int:
        """Tokens of a window that it filled; one more if the window cut its answer."""
        output = self.got.completion_tokens
        cut = self.got.finish == "length" and output < self.sent.max_tokens
        return self.sent.prompt_tokens + output + cut

    @property
    def _needed(self) -> int:
        return self._used if self.is_hint else self.sent.prompt_tokens + self.sent.max_tokens

    @property
    def is_misrouted(self) -> bool:
        """Whether the smaller pool was chosen, and could not hold it."""
        return self.went_short and self._needed > self.short

    @property
    def is_over_routed(self) -> bool:
        """Whether the larger pool was chosen, and the smaller one could have held it."""
        return not self.went_short and self._needed <= self.short

    @property
    def is_reserved(self) -> bool:
        """Whether only the limit that it states kept it from the smaller pool."""
        return not self.went_short and self._used <= self.short < self._needed


def read_answer(records: Sequence[bytes], got: Got) -> Got:
    """Return what a client got with all that the records of an answer state."""
    prompt, completion, finish, usage = 0, 0, "", None
    for record in map(_RECORD.decode, records):
        prompt = len(record.prompt_token_ids or ()) or prompt
        usage = record.usage or usage
        for choice in record.choices:
            completion += len(choice.token_ids or ())
            finish = choice.finish_reason or finish
    return replace(
        got,
        is_whole=got.is_whole and bool(finish),
        prompt_tokens=prompt,
        completion_tokens=completion,
        finish=finish,
        usage=(usage.prompt_tokens, usage.completion_tokens) if usage else None,
    )
