"""Read and merge the inputs of a plan or a simulation: files and live services.

Replicas of a service count as one input.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from extproc.planner.traffic.lengths import (
    OUTPUT_SHARE,
    InputError,
    Trace,
    Workload,
    merged,
    overlaid,
)
from extproc.planner.traffic.opened import read_opened
from extproc.planner.traffic.rows import Reading


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
    try:
        with path.open("rb") as file:
            return read_opened(file, str(path), output_share)
    except OSError as error:
        raise InputError(str(path), 0, f"{error.strerror}; allowed: a readable file") from None
