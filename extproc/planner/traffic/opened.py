"""Read the lengths of a file, optionally compressed by gzip."""

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, Final, cast

from extproc.planner.traffic.lengths import OUTPUT_SHARE, InputError
from extproc.planner.traffic.rows import Reading
from extproc.planner.traffic.traces import read

_PIECE_CHARS: Final = 1 << 24
_GZIP: Final = b"\x1f\x8b"


def read_opened(file: io.BufferedReader, name: str, output_share: float = OUTPUT_SHARE) -> Reading:
    """Read a file that is open in binary; see `read`. Raises InputError, and OSError."""
    try:
        with _text(file) as text:
            return read(_lines(text), name, output_share)
    except UnicodeDecodeError as error:
        raise InputError(
            name, 0, f"not UTF-8 (byte {error.start}); allowed: text in UTF-8"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(name, 0, f"broken gzip: {error}; allowed: a complete file") from None


def _text(file: io.BufferedReader) -> io.TextIOWrapper:
    # Peek, do not seek: it may be a pipe.
    zipped = file.peek(len(_GZIP)).startswith(_GZIP)
    data = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if zipped else file
    # utf-8-sig: spreadsheets begin a CSV with a byte order mark, which would become part of the
    # first column's name. newline: the csv module needs line ends inside quotes unchanged.
    return io.TextIOWrapper(data, encoding="utf-8-sig", newline="")


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    # A document may be one line of any length; its reader limits it.
    return iter(lambda: text.readline(_PIECE_CHARS), "")
