"""Loads the texts of the demo's traffic: built-in prose, Python's source, JSON records, a folder.

All files are read here, once; traffic.py does no I/O.
"""

import json
import random
import re
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

from extproc.config.errors import UserError
from extproc.local.children import StackError
from extproc.local.traffic import Source

_BUILT_IN = Path(__file__).with_name("texts")
_STDLIB_FILES = (
    "argparse.py", "asyncio/base_events.py", "http/client.py", "json/decoder.py", "tarfile.py",
    "email/message.py", "statistics.py", "heapq.py",
)  # fmt: skip
# Full stops, question marks and exclamation marks of the scripts in the built-in texts.
_STOPS = ".!?\u3002\uff01\uff1f\u061f"
_SENTENCE = re.compile(rf"[^\n{_STOPS}]*[{_STOPS}\u00bb\u201d\u300d]*\s*|\n")
_MAX_FILE_BYTES = 4 * 1024 * 1024


def built_in_sources(seed: int) -> tuple[Source, ...]:
    """Return the seven built-in kinds: five languages, Python and JSON."""
    prose = [
        Source(file.stem, split(file.read_text(encoding="utf-8")))
        for file in sorted(_BUILT_IN.glob("*.txt"))
    ]
    return (*prose, Source("code", _stdlib_lines()), Source("json", _records(seed, count=200)))


def folder_sources(folder: Path) -> tuple[Source, ...]:
    """Return one source per file or subfolder, named after it.

    Raises UserError if there is no such folder or no text, or if a file is not UTF-8.
    """
    if not folder.exists():
        raise UserError(f"--texts: {folder} does not exist")
    kinds: dict[str, list[str]] = {}
    for file in sorted(_files(folder)):
        kind = file.stem if file.parent == folder else file.relative_to(folder).parts[0]
        kinds.setdefault(kind, []).extend(split(_read(file)))
    sources = tuple(Source(kind, tuple(pieces)) for kind, pieces in kinds.items() if pieces)
    if not sources:
        raise UserError(f"--texts: {folder} holds no text files")
    return sources


def split(text: str) -> tuple[str, ...]:
    """Split prose into sentences and anything else into lines, without losing a character."""
    return tuple(piece for line in text.splitlines(keepends=True) for piece in _sentences(line))


def _sentences(line: str) -> Sequence[str]:
    # Long lines are prose; code, records and logs have short ones.
    if len(line) <= 120:
        return (line,)
    return [piece for piece in _SENTENCE.findall(line) if piece]


def _files(folder: Path) -> Iterable[Path]:
    try:
        return [file for file in folder.rglob("*") if file.is_file()]
    except OSError as error:
        raise UserError(f"--texts: {error}") from None


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE_BYTES)
            # The limit may cut a larger file within a character.
            return data.decode(errors="ignore" if opened.read(1) else "strict")
    except OSError as error:
        raise UserError(f"--texts: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--texts: {file} is not UTF-8 (byte {error.start})") from None


def _stdlib_lines() -> tuple[str, ...]:
    folder = Path(sysconfig.get_path("stdlib"))
    files = [folder / name for name in _STDLIB_FILES]
    lines = [split(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    if not lines:
        raise StackError(f"Python's own source is not in {folder}; use --texts DIR")
    return tuple(line for file in lines for line in file)


def _records(seed: int, count: int) -> tuple[str, ...]:
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    makers = (_order, _reading, _account)
    return tuple(f"{json.dumps(rng.choice(makers)(rng))},\n" for _ in range(count))


def _order(rng: random.Random) -> dict[str, object]:
    lines = [
        {"sku": f"{rng.choice('ABCDK')}-{rng.randrange(10_000):04d}", "quantity": rng.randint(1, 9),
         "price": round(rng.uniform(0.5, 400), 2)}
        for _ in range(rng.randint(1, 4))
    ]  # fmt: skip
    return {
        "order_id": rng.randrange(10**9),
        "status": rng.choice(["open", "paid", "shipped", "returned"]),
        "lines": lines,
        "ship_to": {"city": rng.choice(["Porto", "Gdansk", "Leeds", "Turku"]), "zip": "4900-112"},
    }


def _reading(rng: random.Random) -> dict[str, object]:
    return {
        "sensor": f"{rng.getrandbits(48):012x}",
        "time": f"2026-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}T06:00:00Z",
        "values": [round(rng.gauss(21, 4), 3) for _ in range(rng.randint(2, 8))],
        "ok": rng.random() < 0.9,
    }


def _account(rng: random.Random) -> dict[str, object]:
    name = rng.choice(["ines", "tomasz", "aiko", "samir", "ruth"])
    return {
        "user": {"id": rng.randrange(10**6), "name": name, "email": f"{name}@example.org"},
        "roles": rng.sample(["reader", "writer", "owner", "auditor"], rng.randint(1, 3)),
        "last_login": None if rng.random() < 0.2 else rng.randrange(1_700_000_000, 1_800_000_000),
    }
