"""Tokenizers from Hugging Face's tokenizer.json, by the package tokenizers."""

from pathlib import Path

import numpy as np
from tokenizers import Encoding

from extproc.evaluation.cuts import Positions
from extproc.evaluation.options import EvaluationError
from extproc.tokenizer_file import TokenizerFileError, count_tokens, open_tokenizer

_CHUNK = 6000  # characters to encode at once, up to the next end of a line


class TokenizerFile:
    """A tokenizer from its tokenizer.json. Raises EvaluationError if it cannot be loaded."""

    def __init__(self, file: Path) -> None:
        self.name = file.parent.name if file.stem == "tokenizer" else file.stem
        try:
            self._file = open_tokenizer(file)
        except TokenizerFileError as error:
            raise EvaluationError(f"--tokenizer: {error}") from None

    def count(self, text: str) -> int:
        """See `TextTokenizer`."""
        return count_tokens(self._file, text)

    def cuts(self, text: str) -> tuple[Positions, Positions]:
        """See `TextTokenizer`: the starts of tokens that begin a character."""
        chunks = _chunks(text)
        encoded = self._file.encode_batch(chunks, add_special_tokens=False)
        starts, first = [], 0
        for chunk, encoding in zip(chunks, encoded, strict=True):
            starts.append(first + _starts(encoding, len(chunk)))
            first += len(chunk)
        return _places(np.concatenate(starts), len(text))


def _chunks(text: str) -> list[str]:
    chunks, first = [], 0
    while first < len(text):
        end = text.find("\n", first + _CHUNK) + 1 or len(text)
        chunks.append(text[first:end])
        first = end
    return chunks


def _starts(encoding: Encoding, length: int) -> Positions:
    starts = np.fromiter((start for start, _ in encoding.offsets), np.int64, len(encoding.ids))
    # Added marks may have offset 0: keep starts ascending.
    return np.minimum(np.maximum.accumulate(starts), length) if len(starts) else starts


def _places(starts: Positions, length: int) -> tuple[Positions, Positions]:
    # A character of several tokens gives its start several times; the first stays, so that no cut
    # divides a character.
    places, before = np.unique(starts, return_index=True)
    if len(places):
        places[0] = 0
    return np.append(places, length), np.append(before, len(starts)).astype(np.int64)
