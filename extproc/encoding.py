"""Decode a content encoding in bounded pieces.

Invariant: for any input, at most one decoded piece is held beside the window of the coding itself
(32 KiB for gzip, at most 16 MiB for brotli, at most 8 MiB for zstd).
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from itertools import chain
from typing import Final, Protocol

PIECE_BYTES: Final = 64 * 1024
"""The longest piece that a decoder yields, in bytes."""

MAX_FRAMES: Final = 1024
"""The most gzip members or zstd frames in a body: an empty one costs time too."""

# RFC 9659: zstd as a content encoding has windows of at most 8 MiB.
_ZSTD_WINDOW_BYTES: Final = 8 << 20
# Four bytes of zstd decode to at most 128 KiB (RFC 8878 section 3.1.1.2, a block of one repeated
# byte), and the library decodes all of its input at once: this step decodes to at most 2 MiB.
_ZSTD_STEP_BYTES: Final = 64
# RFC 1950 section 2.2: a zlib stream begins with this method, raw deflate never does.
_ZLIB_METHOD: Final = 8


def require(library: str) -> None:
    """Raise ModuleNotFoundError without a library, which is loaded by the first body to need it.

    To load it takes some milliseconds, and memory that most services can do without.
    """
    if find_spec(library) is None:
        raise ModuleNotFoundError(f"No module named {library!r}", name=library)


require("brotli")
require("zstandard")


class EncodingError(Exception):
    """An unknown content encoding, or data that does not conform to it."""


class _Stage(Protocol):
    """One coding: yields what further data decodes to."""

    @property
    def fault(self) -> type[Exception]:
        """What its library raises for corrupt data."""

    @property
    def complete(self) -> bool: ...

    def decode(self, data: bytes) -> Iterator[bytes]: ...


class Decoder:
    """Feed it a body in pieces; `complete` says whether the body has ended."""

    def __init__(self, encoding: str) -> None:
        """Take a content-encoding header: empty, identity or one coding.

        Raises EncodingError for an unknown coding, and for several: what the first one decodes to
        would be input of the next without a bound.
        """
        names = [name.strip().lower() for name in encoding.split(",")]
        codings = [name for name in names if name not in {"", "identity"}]
        if len(codings) > 1:
            raise EncodingError(f"{len(codings)} codings, one is read")
        self._stage = _stage(codings[0]) if codings else None

    @property
    def complete(self) -> bool:
        """Whether the coding has ended with the data so far; always true without a coding."""
        return self._stage is None or self._stage.complete

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the data decodes to, in pieces of at most PIECE_BYTES.

        Decodes lazily: a caller that stops iterating must not feed again. Raises EncodingError if
        the data is corrupt.
        """
        pieces, stage = _cut(data), self._stage
        if stage is None:
            yield from pieces
            return
        try:
            yield from chain.from_iterable(map(stage.decode, pieces))
        except stage.fault as fault:
            raise EncodingError(str(fault)) from fault


class _Gzip:
    """RFC 1952: consecutive members are one body."""

    fault = zlib.error

    def __init__(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._members = 1

    @property
    def complete(self) -> bool:
        return self._member.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._members = _one_more(self._members)
                self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            yield from _inflate(self._member, data)
            data = self._member.unused_data


class _Deflate:
    """RFC 9110 section 8.4.1.2: a zlib stream; some clients omit the zlib header."""

    fault = zlib.error

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None

    @property
    def complete(self) -> bool:
        return self._stream is not None and self._stream.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            wrapped = data[0] & 0x0F == _ZLIB_METHOD
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        yield from _inflate(self._stream, data)
        if self._stream.unused_data:
            raise EncodingError("data after the end of the deflate stream")


class _Brotli:
    """RFC 7932."""

    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped]

        self.fault = brotli.error
        self._stream = brotli.Decompressor()

    @property
    def complete(self) -> bool:
        return bool(self._stream.is_finished())

    def decode(self, data: bytes) -> Iterator[bytes]:
        decoded = self._stream.process(data, output_buffer_limit=PIECE_BYTES)
        while decoded or not self._stream.can_accept_more_data():
            yield from _cut(decoded)  # the library stops after its limit, not at it
            decoded = self._stream.process(b"", output_buffer_limit=PIECE_BYTES)


class _Zstd:
    """RFC 8878: consecutive frames are one body."""

    def __init__(self) -> None:
        import zstandard

        self.fault = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._frame = self._decompressor.decompressobj()
        self._frames = 1

    @property
    def complete(self) -> bool:
        return self._frame.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_STEP_BYTES):
            step = data[start : start + _ZSTD_STEP_BYTES]
            while step:
                if self._frame.eof:
                    self._frames = _one_more(self._frames)
                    self._frame = self._decompressor.decompressobj()
                yield from _cut(self._frame.decompress(step))
                step = self._frame.unused_data


_STAGES: Final[Mapping[str, Callable[[], _Stage]]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}


def _stage(name: str) -> _Stage:
    try:
        return _STAGES[name]()
    except KeyError:
        raise EncodingError(f"unknown content encoding {name!r}") from None


def _one_more(frames: int) -> int:
    if frames == MAX_FRAMES:
        raise EncodingError(f"more than {MAX_FRAMES} members or frames")
    return frames + 1


def _inflate(stream: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    piece = stream.decompress(data, PIECE_BYTES)
    while piece:
        yield piece
        piece = stream.decompress(stream.unconsumed_tail, PIECE_BYTES)


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))
