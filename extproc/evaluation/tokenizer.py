"""Find where the tokens of a text begin, to cut prompts of a wanted length from it.

Invariant: a cut never changes the tokens on either side.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np

from extproc.evaluation.cuts import Positions
from extproc.evaluation.texts import Text

BUILT_IN: Final = ("o200k_base", "cl100k_base")


class TextTokenizer(Protocol):
    """Counts the tokens of plain text: special tokens are neither added nor recognised."""

    @property
    def name(self) -> str:
        """The name in reports."""

    def count(self, text: str) -> int:
        """Count the tokens."""

    def cuts(self, text: str) -> tuple[Positions, Positions]:
        """Return ascending positions in characters, with both ends, and the tokens before each."""


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A text and the places where it can be cut."""

    kind: str
    text: str
    places: Positions
    """In characters, ascending, from 0 to the end of the text."""
    before: Positions
    """Tokens before each place."""

    @property
    def tokens(self) -> int:
        """Tokens of the whole text."""
        return int(self.before[-1])

    def run(self, start: float, tokens: int) -> tuple[str, int]:
        """Return a text of about `tokens` tokens, at least one, and its exact number.

        `start`: a share of the text, 0 to 1; it moves forward if too little text is left.
        """
        # Cuts after 0, 3, 5 and 9 tokens; run(0.5, 4): half of the 5 tokens that may precede it is
        # 2.5, so it begins at 3, and 3 + 4 = 7 lies before 9: the text from 3 to 9, 6 tokens.
        wanted = min(tokens, self.tokens)
        # An integer: for a float, numpy would convert all of `before`.
        low = int(np.searchsorted(self.before, math.ceil(start * (self.tokens - wanted))))
        high = int(np.searchsorted(self.before, self.before[low] + wanted))
        low, high = min(low, len(self.before) - 2), min(high, len(self.before) - 1)
        high = max(high, low + 1)
        text = self.text[int(self.places[low]) : int(self.places[high])]
        return text, int(self.before[high] - self.before[low])


def load_tokenizers(files: Sequence[Path]) -> tuple[Callable[[], TextTokenizer], ...]:
    """Return loaders of the files' tokenizers, or of the built-in ones; loading takes seconds."""
    # Imported here: each of the two packages is optional.
    if not files:
        built_in = importlib.import_module("extproc.evaluation.vocabulary").Vocabulary
        return tuple(_loader(built_in, name) for name in BUILT_IN)
    from_file = importlib.import_module("extproc.evaluation.tokenizer_file").TokenizerFile
    return tuple(_loader(from_file, file) for file in files)


def _loader(kind: Callable[[object], object], what: object) -> Callable[[], TextTokenizer]:
    return lambda: cast("TextTokenizer", kind(what))


def tokenize(tokenizer: TextTokenizer, texts: Sequence[Text]) -> tuple[Tokenized, ...]:
    """Tokenize every text."""
    return tuple(Tokenized(each.kind, each.text, *tokenizer.cuts(each.text)) for each in texts)
