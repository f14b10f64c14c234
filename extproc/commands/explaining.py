"""What `dualpool explain` does: decide for one body, and print the decision."""

import argparse
import re
import sys
from dataclasses import asdict
from pathlib import Path

import msgspec

from extproc.commands.serving import load_usable
from extproc.config.errors import UserError
from extproc.request.apis import Endpoint, endpoint, typical_path
from extproc.request.reader import Unreadable
from extproc.service.explain import describe, explain

# Only the names of the fields are needed: their values stay undecoded.
_OFFSET = re.compile(r" \(byte ([0-9]+)\)")
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FAULTS = {
    Unreadable.EMPTY: "the body is empty",
    Unreadable.SHAPE: "not a JSON object, or not all of its prompt is in it",
    Unreadable.TOO_LARGE: "more bytes than requests.max_body_bytes, or too many JSON values",
}


def print_decision(options: argparse.Namespace) -> bool:
    """Print the decision for a body; return whether the body could be read.

    Raises ConfigError, and UserError without a body.
    """
    settings = load_usable(options.config)
    given = _endpoint(options.path) if options.path else None
    body = _read(options.file)
    kind = given or _endpoint(_guess(body))
    explanation = explain(body, kind, settings)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(asdict(explanation)), indent=2).decode())
    else:
        print(describe(explanation))
    if explanation.unreadable:
        reason = Unreadable(explanation.unreadable)
        print(f"dualpool: {options.file}: {_FAULTS.get(reason) or _broken(body)}", file=sys.stderr)
    return not explanation.unreadable


def _broken(body: bytes) -> str:
    """Return where a body stops being JSON, and why, without a byte of it."""
    try:
        msgspec.json.decode(body.decode())
    except msgspec.DecodeError as error:
        found = _OFFSET.search(str(error))
        end, why = int(found[1]) if found else len(body), _OFFSET.sub("", str(error))
    except UnicodeDecodeError as error:
        end, why = error.start, "not UTF-8"
    except RecursionError:
        return "nested too deeply"
    else:
        return "some text of it cannot be encoded"
    line, column = body.count(b"\n", 0, end) + 1, end - body.rfind(b"\n", 0, end)
    return f"line {line}, column {column} (byte {end}): {why}"


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"dualpool: {file}: {error.strerror}") from None


def _endpoint(path: str) -> Endpoint:
    kind = endpoint(path)
    if kind is None:
        raise UserError(f"dualpool: {path} carries no prompt: such requests pass on unread")
    return kind


def _guess(body: bytes) -> str:
    """Return the path for the fields of a body; one that cannot be decoded counts as a chat."""
    chat = typical_path({})
    try:
        path = typical_path(_FIELDS.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return chat
    if path != chat:
        print(f"dualpool: without --path this counts as a body of {path}", file=sys.stderr)
    return path
