"""Open Hugging Face's tokenizer.json, by the package tokenizers, which is optional."""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from extproc.names import install_hint

if TYPE_CHECKING:
    from tokenizers import Tokenizer


Signature = tuple[int, ...]


class TokenizerFileError(Exception):
    """The file cannot be used; the text says what to change."""


# By path, with the signature of what was opened: each takes up to 50 MB.
_opened: "dict[Path, tuple[Signature, Tokenizer]]" = {}


def open_tokenizer(file: Path) -> "Tokenizer":
    """Return the tokenizer of a file, the same for all who ask until the file is another one.

    Raises TokenizerFileError.
    """
    signature = signature_of(file)
    known = _opened.get(file)
    if known is None or signature is None or known[0] != signature:
        known = _opened[file] = signature or (), _open(file)
    return known[1]


def signature_of(file: Path) -> Signature | None:
    """Return what differs once a file was replaced or written to; None if there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _open(file: Path) -> "Tokenizer":
    try:
        package = import_module("tokenizers")
    except ImportError:
        hint = install_hint("tokenizer")
        raise TokenizerFileError(f"needs the package tokenizers: {hint}") from None
    try:
        file.open("rb").close()  # what the package says of a file that it cannot open is no help
    except OSError as error:
        fix = "use a file that this user may read"
        raise TokenizerFileError(f"{file}: cannot be read: {error.strerror}; {fix}") from None
    try:
        found: Tokenizer = package.Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001 - the package raises the bare Exception
        told = f"is no tokenizer.json of Hugging Face ({error}); use the one that vLLM loads"
        raise TokenizerFileError(f"{file}: {told}") from None
    found.no_truncation()
    found.no_padding()
    return found


def count_tokens(tokenizer: "Tokenizer", text: str) -> int:
    """Count the tokens of a text, without those that begin or end a prompt."""
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
