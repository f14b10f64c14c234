"""Take a bounded sample of the texts of a prompt.

Invariant: the sample represents all texts in proportion to their bytes, so that counts in it scale
to the whole by one factor.
"""

from collections.abc import Iterator, Sequence
from typing import Final

SAMPLE_BYTES: Final = 16 * 1024
"""The longest sample, in bytes."""

_WINDOWS: Final = 64
_DENSE: Final = b"0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
# A window ends with its last character, up to three bytes later.
_WINDOW_BYTES: Final = SAMPLE_BYTES // _WINDOWS - 3
# Joining costs per byte, visiting each text costs per text: both cost the same at this length.
_SHORT_TEXT_BYTES: Final = 1024


def rough_tokens(text: str) -> float:
    """Estimate the tokens of a text by two kinds of bytes, to rank texts by their tokens.

    Tokenizers make about a token of each digit and sign, and one of four to five other bytes.
    """
    data = text.encode()
    rest = len(data.translate(None, _DENSE))
    return 0.22 * rest + 0.8 * (len(data) - rest)


def take_sample(texts: Sequence[str | bytes]) -> tuple[int, bytes]:
    """Return the UTF-8 bytes of the texts, and a sample of at most SAMPLE_BYTES.

    No text is empty, and those in UTF-8 are longer than the sample. The sample is all texts, joined
    by newlines, or, if that is longer, windows at even distances over all of them. Windows are
    joined without a separator: two halves of words make about one word. No character is cut.
    """
    if sum(map(len, texts)) + len(texts) <= SAMPLE_BYTES:  # in characters
        whole = "\n".join(map(as_str, texts)).encode()
        if len(whole) < SAMPLE_BYTES:
            return len(whole) - max(len(texts) - 1, 0), whole
    sized = [_sized(text) for text in texts]
    total = sum(map(len, sized))
    if total < len(sized) * _SHORT_TEXT_BYTES:
        sized = ["".join(map(as_str, texts)).encode()]
    return total, b"".join(_windows(sized, total))


def as_str(text: str | bytes) -> str:
    """Return a text that may be in UTF-8."""
    return text if isinstance(text, str) else text.decode()


def _sized(text: str | bytes) -> str | bytes:
    return text.encode() if isinstance(text, str) and not text.isascii() else text


def _windows(texts: list[str | bytes], total: int) -> Iterator[bytes]:
    start = 0  # of this text within all texts, in bytes
    size = min(_WINDOW_BYTES, total // _WINDOWS)
    for text in texts:
        end = start + len(text)
        numbers = range(start * _WINDOWS // total, -(-end * _WINDOWS // total))
        places = [number * total // _WINDOWS - start for number in numbers]
        if places and places[0] < 0:  # that window begins in the text before, and may end there
            yield _cut(text, 0, max(places.pop(0) + size, 0))
        if isinstance(text, str):
            yield "".join([text[at : at + size] for at in places]).encode()
        else:
            yield from [_cut(text, at, at + size) for at in places]
        start = end


def _cut(text: str | bytes, start: int, end: int) -> bytes:
    """Return a piece of a text, which ends with its last character."""
    if isinstance(text, str):
        return text[start:end].encode()
    return text[_edge(text, start) : _edge(text, end)]


def _edge(text: bytes, at: int) -> int:
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at += 1
    return at
