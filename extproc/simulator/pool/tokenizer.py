"""The tokenizer of the simulated pool: o200k_base, which gpt-oss uses as well.

Special tokens in a text are encoded as ordinary characters.
"""

import warnings
from typing import Protocol

with warnings.catch_warnings():
    # The package opens its files with a function that Python 3.11 and 3.12 deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    # Its public wrapper rejects a million characters; its Rust core does not, and frees the GIL.
    from bpe_openai import _bindings  # type: ignore[import-untyped]

_ORDINARY = 199_998  # ids below this have a text; special tokens follow
VOCABULARY = 201_088  # gpt-oss's, with its special tokens
CHARACTERS_PER_TOKEN = 128  # the longest token is a run of spaces


class _BpeCore(Protocol):
    def count(self, text: str) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...


class Tokenizer:
    """Counts, encodes and decodes; raises UnicodeEncodeError for a lone surrogate."""

    def __init__(self) -> None:
        self._core: _BpeCore = _bindings.tokenizer_for_encoding("o200k_base")

    def count(self, text: str) -> int:
        """Count the tokens of a text; takes about 20 ms per megabyte."""
        return self._core.count(text)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return self._core.encode(text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids: without special tokens, "" if it is not UTF-8."""
        try:
            return self._core.decode([id_ for id_ in ids if id_ < _ORDINARY])
        except ValueError:
            return ""
