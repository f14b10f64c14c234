"""Measure texts: their bytes in all, and a sample that stands for them.

The rule it keeps: the sample says of the whole what its bytes say, at one scale.
"""

from collections.abc import Iterator, Sequence
from typing import Final

SAMPLE_BYTES: Final = 16 * 1024
"""The longest sample, in bytes."""

_WINDOWS: Final = 64
# A window ends where its last character does, which is up to three bytes further on.
_WINDOW_BYTES: Final = SAMPLE_BYTES // _WINDOWS - 3
# Joining costs by the byte, going from text to text by the text: this is where they cost the same.
_SHORT_TEXT_BYTES: Final = 1024


def measure(texts: Sequence[str]) -> tuple[int, bytes]:
    """Return the UTF-8 bytes of the texts, and at most SAMPLE_BYTES of them as a sample.

    No text is empty. The sample is the texts, a newline between each two, or, where that is
    longer, windows at even distances over all of them. Windows follow one another without a
    separator: two halves of words make about one word. No character is cut.
    """
    sized = [text if text.isascii() else text.encode() for text in texts]
    total = sum(map(len, sized))
    if total + len(sized) <= SAMPLE_BYTES:
        return total, "\n".join(texts).encode()
    if total < len(sized) * _SHORT_TEXT_BYTES:
        sized = ["".join(texts).encode()]
    return total, b"".join(_windows(sized, total))


def _windows(texts: list[str | bytes], total: int) -> Iterator[bytes]:
    start = 0  # of this text within all of them, in bytes
    for text in texts:
        end = start + len(text)
        for window in range(start * _WINDOWS // total, -(-end * _WINDOWS // total)):
            first = window * total // _WINDOWS
            last = min(first + _WINDOW_BYTES, (window + 1) * total // _WINDOWS)
            yield _part(text, max(first - start, 0), max(last - start, 0))
        start = end


def _part(text: str | bytes, first: int, last: int) -> bytes:
    if isinstance(text, str):
        return text[first:last].encode()
    return text[_edge(text, first) : _edge(text, last)]


def _edge(text: bytes, at: int) -> int:
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at += 1
    return at
