"""The tokens of the beginnings of prompts, as earlier answers tell them.

The answer to a prompt tells its tokens exactly. A later prompt that begins with it then has so many
tokens, and those of the rest, which alone are estimated. Instructions that many conversations share
are never answered alone: of each answer the estimate of what follows them is subtracted, and the
mean of what is left soon is better than an estimate.

Invariants: at most `most` beginnings are kept, by their digests alone, those that were used last.
What an answer contradicts is forgotten.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from extproc.budget.saved import Finite, Name
from extproc.budget.values import Prefix, Recalled
from extproc.budget.weights import Prediction

STEADY: Final = 32.0
"""Each answer counts at least as one in so many: estimates of what follows change as they learn."""
CONTRADICTION: Final = 4.0
"""The error, in deviations, after which a beginning is not believed any more."""


_AT_ONCE: Final = 256


class SavedPrefixes(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """Beginnings in a snapshot, in their order; a deviation of -1 is infinite."""

    known: Annotated[list[tuple[Name, Finite, Finite]], Meta(max_length=_AT_ONCE)]


class Prefixes:
    """The beginnings that are known. Not thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[str, Recalled] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def resize(self, most: int) -> None:
        """Keep at most so many beginnings from now on."""
        self._most = most
        while len(self._known) > most:
            self._known.popitem(last=False)

    def find(self, digest: str) -> Recalled | None:
        """Return what is known of a beginning; its tokens are unknown while it was seen once."""
        return self._known.get(digest)

    def learn(self, prefix: Prefix, prompt_tokens: int, rest: Prediction | None) -> None:
        """Learn from an answer; `rest` are the tokens after the part, if they were estimated."""
        if not self._most:
            return
        if prefix.part:
            self._keep(prefix.part, self._part(prefix.part, prompt_tokens, rest))
        self._keep(prefix.whole, Recalled(float(prompt_tokens), 0.0))

    def save(self) -> Iterator[SavedPrefixes]:
        """Yield what is kept in a snapshot."""
        known = list(self._known.items())
        for start in range(0, len(known), _AT_ONCE):
            yield SavedPrefixes(
                [
                    (digest, each.tokens, -1.0 if math.isinf(each.deviation) else each.deviation)
                    for digest, each in known[start : start + _AT_ONCE]
                ]
            )

    def load(self, saved: SavedPrefixes) -> None:
        """Continue with beginnings that were saved."""
        for digest, tokens, deviation in saved.known if self._most else ():
            self._keep(digest, Recalled(tokens, math.inf if deviation < 0.0 else deviation))

    def forget(self, prefix: Prefix) -> None:
        """Forget a part that an answer contradicts."""
        self._known.pop(prefix.part, None)

    def _part(self, digest: str, prompt_tokens: int, rest: Prediction | None) -> Recalled:
        kept = self._known.get(digest) or Recalled()
        if rest is None or kept.deviation == 0.0:
            return kept
        found, variance = prompt_tokens - rest.tokens, rest.deviation**2
        if math.isinf(kept.deviation):
            return Recalled(found, rest.deviation)
        share = max(kept.deviation**2 / (kept.deviation**2 + variance), 1.0 / STEADY)
        tokens = kept.tokens + share * (found - kept.tokens)
        return Recalled(tokens, math.sqrt(share * variance))

    def _keep(self, digest: str, recalled: Recalled) -> None:
        self._known[digest] = recalled
        self._known.move_to_end(digest)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
