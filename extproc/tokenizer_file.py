"""Open Hugging Face's tokenizer.json, by the package tokenizers, which is optional."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.names import install_hint

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenizerFileError(Exception):
    """The file cannot be used; the text says what to change."""


@cache
def open_tokenizer(file: Path) -> "Tokenizer":
    """Return the tokenizer of a file, the same for all who ask. Raises TokenizerFileError."""
    try:
        package = import_module("tokenizers")
    except ImportError:
        hint = install_hint("tokenizer")
        raise TokenizerFileError(f"needs the package tokenizers: {hint}") from None
    try:
        found: Tokenizer = package.Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001 - the package raises the bare Exception
        raise TokenizerFileError(f"{file}: {error}") from None
    found.no_truncation()
    found.no_padding()
    return found


def count_tokens(tokenizer: "Tokenizer", text: str) -> int:
    """Count the tokens of a text, without those that begin or end a prompt."""
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
