"""Where a text's tokens begin, so that prompts of a wanted length can be cut from it.

The rule kept here: a cut is only made where it leaves the tokens on both sides as they are.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np

from extproc.evaluation.cuts import Positions
from extproc.evaluation.texts import Text

BUILT_IN: Final = ("o200k_base", "cl100k_base")


class Tokenizer(Protocol):
    """Counts the tokens of texts, as text: no special tokens are added or seen."""

    @property
    def name(self) -> str:
        """As reports name it."""

    def count(self, text: str) -> int:
        """Count the tokens."""

    def cuts(self, text: str) -> tuple[Positions, Positions]:
        """Return rising positions in characters, and the tokens before each; both ends are in."""


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A text with the places where it may be cut."""

    kind: str
    text: str
    places: Positions
    """In characters, rising, from 0 to the text's end."""
    before: Positions
    """Tokens before each place."""

    @property
    def tokens(self) -> int:
        """Of the whole text."""
        return int(self.before[-1])

    def run(self, start: float, tokens: int) -> tuple[str, int]:
        """Return the text of about so many tokens, and how many it has, at least one.

        `start`: a share of the text, 0 to 1; where there is too little left, it starts earlier.
        """
        wanted = min(tokens, self.tokens)
        low = int(np.searchsorted(self.before, start * (self.tokens - wanted)))
        high = int(np.searchsorted(self.before, self.before[low] + wanted))
        low, high = min(low, len(self.before) - 2), min(high, len(self.before) - 1)
        high = max(high, low + 1)
        text = self.text[int(self.places[low]) : int(self.places[high])]
        return text, int(self.before[high] - self.before[low])


def load_tokenizers(files: Sequence[Path]) -> tuple[Callable[[], Tokenizer], ...]:
    """Return what loads each file's tokenizer, or else each built-in one: some take seconds."""
    if not files:
        built_in = importlib.import_module("extproc.evaluation.vocabulary").Vocabulary
        return tuple(_loader(built_in, name) for name in BUILT_IN)
    from_file = importlib.import_module("extproc.evaluation.tokenizer_file").TokenizerFile
    return tuple(_loader(from_file, file) for file in files)


def _loader(kind: Callable[[object], object], what: object) -> Callable[[], Tokenizer]:
    return lambda: cast("Tokenizer", kind(what))


def tokenize(tokenizer: Tokenizer, texts: Sequence[Text]) -> tuple[Tokenized, ...]:
    """Find the tokens of every text."""
    return tuple(Tokenized(each.kind, each.text, *tokenizer.cuts(each.text)) for each in texts)
