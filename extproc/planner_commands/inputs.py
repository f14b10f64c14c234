"""Read and merge the inputs of a plan or a simulation: files and live services.

Formats are those of `extproc.planner.traffic.traces`, optionally compressed by gzip. Replicas of a
service count as one input.
"""

import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from extproc.planner.traffic.lengths import (
    OUTPUT_SHARE,
    InputError,
    Trace,
    Workload,
    merged,
    overlaid,
)
from extproc.planner.traffic.rows import Reading
from extproc.planner.traffic.traces import read

_PIECE_CHARS: Final = 1 << 24
_GZIP: Final = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """Where lengths come from.

    services: HTTP addresses (listen.http) of live services, all of one deployment. weights: one per
    file and then one for the services. Without weights every request counts the same, or every
    input if one of them is a distribution. output_share: share of a total that is output, if only
    totals are known.
    """

    files: tuple[Path, ...] = ()
    services: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    output_share: float = OUTPUT_SHARE


def read_inputs(options: InputOptions) -> Reading:
    """Read all inputs and merge them into one.

    Traces without weights are overlaid and stay a trace; everything else is merged into a workload
    without times. Raises InputError for unreadable inputs and for wrong options.
    """
    _check(options)
    readings = [_read_file(file, options.output_share) for file in options.files]
    if options.services:
        # Imported here: a client of HTTP takes long to import, and most inputs are files.
        from extproc.planner_commands.live import read_services

        readings.append(read_services(options.services))
    return readings[0] if len(readings) == 1 else _merged(readings, options.weights)


def _check(options: InputOptions) -> None:
    inputs = len(options.files) + bool(options.services)
    if not inputs:
        raise InputError("FILE", 0, "missing; allowed: files, or --from URL")
    if len(options.weights) not in {0, inputs}:
        text = f"{len(options.weights)} for {inputs} inputs; allowed: one per input, or none"
        raise InputError("--weight", 0, text)
    for weight in options.weights:
        if not 0 < weight < math.inf:
            raise InputError("--weight", 0, f"{weight:g} is not allowed: a number above 0")
    if not 0 < options.output_share < 1:
        text = f"{options.output_share:g} is not allowed: a share above 0 and below 1"
        raise InputError("--output-share", 0, text)


def _merged(readings: Sequence[Reading], weights: Sequence[float]) -> Reading:
    notes = tuple(note for reading in readings for note in reading.notes)
    count = sum(reading.count for reading in readings)
    traces = [r.requests for r in readings if isinstance(r.requests, Trace)]
    if not weights and len(traces) == len(readings):
        return Reading(requests=overlaid(traces), count=count, notes=notes)
    # A distribution has no number of requests to be weighed by.
    counted = all(reading.count for reading in readings)
    weights = weights or [reading.count if counted else 1 for reading in readings]
    shares = ", ".join(f"{weight / sum(weights):.1%}" for weight in weights)
    note = f"inputs are merged without times, with {shares} of the requests"
    return Reading(
        requests=merged([_workload(reading.requests) for reading in readings], weights),
        count=count,
        notes=(*notes, note),
    )


def _workload(requests: Trace | Workload) -> Workload:
    return requests.workload() if isinstance(requests, Trace) else requests


def _read_file(path: Path, output_share: float) -> Reading:
    name = str(path)
    try:
        with path.open("rb") as file, _text(file) as text:
            return read(_lines(text), name, output_share)
    except UnicodeDecodeError as error:
        raise InputError(
            name, 0, f"not UTF-8 (byte {error.start}); allowed: text in UTF-8"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(name, 0, f"broken gzip: {error}; allowed: a complete file") from None
    except OSError as error:
        raise InputError(name, 0, f"{error.strerror}; allowed: a readable file") from None


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
