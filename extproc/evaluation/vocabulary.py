"""OpenAI's vocabularies, built into the package bpe-openai."""

from functools import cache
from typing import Protocol

from extproc.evaluation.cuts import Positions, cuts_of_pieces
from extproc.simulator.pool.tokenizer import bpe_core


class _VocabularyBindings(Protocol):
    def count(self, text: str) -> int: ...
    def pretokenize(self, text: str) -> list[str]: ...


class Vocabulary:
    """A tokenizer by the name of its vocabulary."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._core: _VocabularyBindings = bpe_core(name)

    def count(self, text: str) -> int:
        """See `TextTokenizer`."""
        return self._core.count(text)

    def cuts(self, text: str) -> tuple[Positions, Positions]:
        """See `TextTokenizer`: the boundaries of words, which are encoded one by one."""
        words = self._core.pretokenize(text)
        # Texts repeat their words.
        count = cache(self._core.count)
        return cuts_of_pieces(words, [count(word) for word in words])
