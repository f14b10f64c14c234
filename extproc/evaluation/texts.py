"""Read the texts that requests are made of, or the requests themselves.

Twelve classes are built in: the demo's languages, Python and JSON, C if Python's headers are
installed, and CSV, logs and base64 generated from a seed. Writer adds a class that mixes all texts.
"""

import base64
import json
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from extproc.config.errors import UserError
from extproc.evaluation.options import EvaluationError
from extproc.local.sources import built_in_sources, folder_sources
from extproc.local.traffic import Source

MIXED: Final = "mixed, tools"
"""The class of requests that mix all other classes and always have tools."""
_MADE_LINES: Final = 1500
_C_BYTES: Final = 400_000


@dataclass(frozen=True, slots=True)
class Text:
    """The text of one class."""

    kind: str
    text: str


def read_texts(folder: Path | None, seed: int) -> tuple[Text, ...]:
    """Return a text per class. Raises EvaluationError if the folder has none."""
    if folder is None:
        return (*_joined(built_in_sources(seed)), *_made(random.Random(seed)))  # noqa: S311
    try:
        return _joined(folder_sources(folder))
    except UserError as error:
        raise EvaluationError(str(error)) from None


def read_bodies(file: Path, most: int) -> tuple[dict[str, object], ...]:
    """Return the bodies of a JSONL file, with or without the wrapper of the batch format."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"--texts: {file}: {error}") from None
    found = [_body(line, f"{file}:{number}") for number, line in enumerate(lines, 1) if line]
    if not found:
        raise EvaluationError(f"--texts: {file} has no requests")
    return tuple(found[:most])


def _body(line: str, place: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        raise EvaluationError(f"--texts: {place} is not JSON") from None
    body = value.get("body", value) if isinstance(value, dict) else None
    if not isinstance(body, dict):
        raise EvaluationError(f"--texts: {place} is not a request")
    return body


def _joined(sources: tuple[Source, ...]) -> tuple[Text, ...]:
    return tuple(Text(source.kind, "".join(source.pieces)) for source in sources)


def _made(rng: random.Random) -> Iterator[Text]:
    if headers := _c_headers():
        yield Text("c", headers)
    for kind, line in (("csv", _csv_line), ("logs", _log_line), ("base64", _base64_lines)):
        yield Text(kind, "".join(line(rng) for _ in range(_MADE_LINES)))


def _c_headers() -> str:
    files = sorted(Path(sysconfig.get_path("include")).glob("*.h"))
    return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)[:_C_BYTES]


def _csv_line(rng: random.Random) -> str:
    day = f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    place = rng.choice(["Porto", "Leeds", "Turku", "Gdansk", "Brno", "Ghent"])
    amounts = (f"{rng.gauss(900, 400):.2f}" for _ in range(4))
    return ",".join([str(rng.randrange(10**6)), day, place, *amounts]) + "\n"


def _log_line(rng: random.Random) -> str:
    clock = f"{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}"
    level = rng.choice(["INFO", "INFO", "INFO", "WARN", "ERROR", "DEBUG"])
    source = rng.choice(["scheduler", "kv_cache", "http.server", "engine.core", "auth"])
    did = rng.choice(["accepted", "preempted", "finished", "timed out waiting for", "rejected"])
    return (
        f"2026-11-21 {clock},{rng.randrange(1000):03d} {level} [{source}] {did} request"
        f" id={rng.getrandbits(48):012x} after {rng.randrange(9999)} ms\n"
    )


def _base64_lines(rng: random.Random) -> str:
    name = rng.choice(["logo", "signature", "chart", "scan"])
    data = base64.b64encode(rng.randbytes(rng.randint(60, 900))).decode()
    return f"The file {name}.png follows, as the form asks:\ndata:image/png;base64,{data}\n"
