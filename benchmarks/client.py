"""Runs the load client, as a process of its own."""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from subprocess import PIPE

import msgspec

from benchmarks.bodies import Body
from benchmarks.rig import PATH, BenchmarkError

PYTHON_CLIENT = (sys.executable, "-m", "benchmarks.http_load")


@dataclass(frozen=True, slots=True)
class Load:
    """Connections, and requests a second at random times; 0: one after another on each."""

    connections: int
    rate: float = 0.0

    @property
    def name(self) -> str:
        """The name in tables."""
        return f"{self.rate:g} requests/s" if self.rate else f"{self.connections} connections"


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What the client measured; the percentiles are of the time to the end of an answer."""

    requests: int
    failed: int
    seconds: float
    p50_us: float
    p99_us: float


async def run_load(
    client: Sequence[str], port: int, body: Body, load: Load, seconds: float
) -> LoadFigures:
    """Send a load; raises BenchmarkError if a request was not answered with 200."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body.data)
        file.flush()
        headers = f"x-prompt-tokens: {body.prompt_tokens}\r\n"
        figures = (str(load.connections), str(seconds), str(load.rate))
        argv = (*client, str(port), *figures, PATH, headers, file.name)
        process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=PIPE)
        output, errors = await process.communicate()
    if process.returncode:
        raise BenchmarkError(f"the load client failed: {errors.decode(errors='replace').strip()}")
    found = msgspec.json.decode(output, type=LoadFigures)
    if found.failed or not found.requests:
        of = found.failed + found.requests
        raise BenchmarkError(f"{body.name}, {load.name}: {found.failed} of {of} requests failed")
    return found
