"""The tokenizer of the simulated pool: o200k_base, which gpt-oss uses as well.

Special tokens in a text are encoded as ordinary characters.
"""

import importlib.util
from functools import cache
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, Protocol

_ORDINARY = 199_998  # ids below this have a text; special tokens follow
VOCABULARY = 201_088  # gpt-oss's, with its special tokens
CHARACTERS_PER_TOKEN = 128  # the longest token is a run of spaces


class _BpeCore(Protocol):
    def count(self, text: str) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...


def bpe_core(vocabulary: str) -> Any:
    """Return the Rust core of bpe-openai's tokenizer for a vocabulary.

    The package's public wrapper rejects a million characters; the core does not, and frees the GIL.
    Raises ModuleNotFoundError without the package.
    """
    return _bindings().tokenizer_for_encoding(vocabulary)


@cache
def _bindings() -> ModuleType:
    # An import would run the package's own code, which parses all vocabularies at once, in Python.
    name = "bpe_openai"
    package = importlib.util.find_spec(name)
    folders = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec(f"{name}._bindings", folders) if folders else None
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tokenizer:
    """Counts, encodes and decodes; raises UnicodeEncodeError for a lone surrogate."""

    def __init__(self) -> None:
        self._core: _BpeCore = bpe_core("o200k_base")

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
