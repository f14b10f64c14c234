"""OpenAI's vocabularies, from the package bpe-openai: they need no file."""

import warnings
from functools import cache
from typing import Protocol

from extproc.evaluation.cuts import Positions, cuts_of_pieces

with warnings.catch_warnings():
    # The package opens its files by a function that Python 3.11 and 3.12 call deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from bpe_openai import _bindings  # type: ignore[import-untyped]


class _Core(Protocol):
    def count(self, text: str) -> int: ...
    def pretokenize(self, text: str) -> list[str]: ...


class Vocabulary:
    """A tokenizer by the name of its vocabulary."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._core: _Core = _bindings.tokenizer_for_encoding(name)

    def count(self, text: str) -> int:
        """See `Tokenizer`."""
        return self._core.count(text)

    def cuts(self, text: str) -> tuple[Positions, Positions]:
        """See `Tokenizer`: between the words that are encoded one by one."""
        words = self._core.pretokenize(text)
        count = cache(self._core.count)
        return cuts_of_pieces(words, [count(word) for word in words])
