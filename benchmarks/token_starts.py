"""Write the table of `extproc.budget.token_starts` from texts and tokenizers.

    python -m benchmarks.token_starts --tokenizer A.json --tokenizer B.json FOLDER...

Takes text files and catalogues of translations (.mo, a kind for each language) from the folders, so
many bytes of each kind. Leaves out what `dualpool evaluate` writes requests of: Python's
headers and the files of its library that are built in. Tokenizers that only evaluate uses stay
unseen as well.
"""

import argparse
import gettext
import gzip
import random
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extproc import budget
from extproc.budget.neighbours import hashes
from extproc.budget.token_starts import BITS, FILE, encode
from extproc.evaluation.tokenizer_file import TokenizerFile

_KINDS: Final = {
    ".css", ".h", ".html", ".js", ".json", ".md", ".mo", ".pl", ".py", ".rst", ".sh", ".txt",
    ".xml", ".yaml", ".1", ".2", ".3", ".4", ".5", ".6", ".7", ".8",
}  # fmt: skip
_EVALUATED: Final = {
    "argparse.py", "base_events.py", "client.py", "decoder.py", "tarfile.py", "message.py",
    "statistics.py", "heapq.py",
}  # fmt: skip
_MOST_BYTES: Final = 300_000  # of a kind
_MOST_OF_LANGUAGE: Final = 60_000  # there are a hundred
_MOST_CHARS: Final = 15_000  # of a file: many files say more than a few long ones
_MOST_FILE_BYTES: Final = 4 * 1024 * 1024
_SHRINK: Final = 2.0
"""Bytes of the mean that each hash has seen besides its own."""


def _files(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files of each kind."""
    headers = Path(sysconfig.get_path("include")).name  # python3.11, also below /usr/include
    kinds: dict[str, list[Path]] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            suffix = Path(file.name.removesuffix(".gz")).suffix
            taken = suffix in _KINDS and file.name not in _EVALUATED and headers not in file.parts
            if taken and file.is_file() and file.stat().st_size <= _MOST_FILE_BYTES:
                kind = file.parts[-3] if suffix == ".mo" else suffix
                kinds.setdefault(kind, []).append(file)
    return kinds


def _read(file: Path, rng: random.Random) -> str:
    """Return a piece of a file's text; empty if it is none."""
    try:
        if file.suffix == ".mo":
            with file.open("rb") as opened:
                text = "\n".join(_translations(gettext.GNUTranslations(opened)))
        else:
            data = file.read_bytes()
            text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    except (OSError, ValueError, EOFError, LookupError):
        return ""
    start = rng.randrange(max(1, len(text) - _MOST_CHARS))
    return "" if "\0" in text else text[start : start + _MOST_CHARS]


def _translations(catalogue: gettext.GNUTranslations) -> Iterator[str]:
    found: dict[object, object] = vars(catalogue)["_catalog"]
    for original, text in found.items():
        if isinstance(text, str) and original and text != original:
            yield text


def _texts(folders: Sequence[Path]) -> Iterator[str]:
    rng, seen = random.Random(1), set[str]()  # noqa: S311 - reproducible, not secret
    for kind, files in _files(folders).items():
        rng.shuffle(files)
        size, most = 0, _MOST_BYTES if kind in _KINDS else _MOST_OF_LANGUAGE
        for file in files:
            text = _read(file, rng)
            if text and text not in seen:
                seen.add(text)
                size += len(text.encode())
                yield text
            if size >= most:
                break


def _starts(tokenizer: TokenizerFile, text: str) -> NDArray[np.float64]:
    """Return the tokens that begin in each character, at the first of its bytes."""
    data = np.frombuffer(text.encode(), np.uint8)
    firsts = np.flatnonzero(data & 0xC0 != 0x80)
    places, before = tokenizer.cuts(text)
    starts = np.zeros(data.size)
    starts[firsts[places[:-1]]] = np.diff(before)
    return starts


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.token_starts")
    parser.add_argument("--tokenizer", type=Path, action="append", required=True)
    parser.add_argument("folders", type=Path, nargs="+")
    given = parser.parse_args(arguments)
    tokenizers = [TokenizerFile(file) for file in given.tokenizer]
    total, seen = np.zeros(1 << BITS), np.zeros(1 << BITS)
    for text in _texts(given.folders):
        found = hashes(text.encode(), BITS)
        starts = np.mean([_starts(each, text) for each in tokenizers], axis=0)
        total += np.bincount(found, starts, 1 << BITS)
        seen += np.bincount(found, minlength=1 << BITS)
    mean = total.sum() / seen.sum()
    file = Path(budget.__file__).with_name(FILE)
    file.write_bytes(encode((total + _SHRINK * mean) / (seen + _SHRINK)))
    print(f"{seen.sum():.0f} bytes of text, {mean:.4f} tokens a byte")  # noqa: T201


if __name__ == "__main__":
    main()
