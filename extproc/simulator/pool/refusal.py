"""The error answers of a simulated pool: statuses and bodies are exactly those of vLLM 0.32.

Messages are those of vLLM's entrypoints/serve/exception_handling and protocol classes, and were
compared with a running vLLM.
"""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

_MAX_REPORTED_ERRORS = 10
_MAX_INPUT_CHARACTERS = 200
_CUT = "...[truncated]"

# vLLM removes paths from its messages, so that they do not reveal its file system.
_PATHS = re.compile(
    r"/(?:home|usr|opt|var|tmp|root|lib|mnt|srv)(?:/[\w.\-]+)+|(?:/[\w\-]+)+/[\w\-]+\.\w+"
)


class RefusedError(Exception):
    """A request is refused with an HTTP status and a JSON body."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


class CheckFailedError(RefusedError):
    """The request is well-formed, but one of vLLM's own checks rejects it."""

    def __init__(self, status: int, kind: str, message: str, param: str | None) -> None:
        super().__init__(status, _body(status, kind, message, param))
        self._kind = kind
        self._message = _clean(message)

    def as_anthropic(self) -> RefusedError:
        """Return the same refusal in the shape of Anthropic's API."""
        error = {"type": self._kind, "message": self._message}
        return RefusedError(self.status, msgspec.json.encode({"type": "error", "error": error}))


def refused(message: str, *, param: str | None = None, value: object = None) -> CheckFailedError:
    """Return the 400 for a value that vLLM's own checks reject."""
    facts = [f"parameter={param}"] * (param is not None) + [f"value={value}"] * (value is not None)
    text = f"{message} ({', '.join(facts)})" if facts else message
    return CheckFailedError(HTTPStatus.BAD_REQUEST, "BadRequestError", text, param)


def failed(status: HTTPStatus, message: str, param: str) -> CheckFailedError:
    """Return the refusal of /v1/responses for what this server does not do or have."""
    return CheckFailedError(status, "invalid_request_error", message, param)


def unknown_model(model: str, served: str) -> CheckFailedError:
    """Return the 404 for a model that is not served."""
    text = f"The model `{model}` does not exist. Valid aliases: {served}."
    return CheckFailedError(HTTPStatus.NOT_FOUND, "NotFoundError", text, "model")


def wrong_media_type() -> RefusedError:
    """Return the 400 for a content type other than JSON."""
    return _invalid("  Unsupported Media Type: Only 'application/json' is allowed", 1, None)


def broken_json(message: str, position: int) -> RefusedError:
    """Return the 400 for invalid JSON; message and position are those of the json module."""
    error = {
        "type": "json_invalid",
        "loc": ("body", position),
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": message},
    }
    return invalid([error])


def missing_body() -> RefusedError:
    """Return the 400 for an empty body or null."""
    return invalid([{"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}])


def not_an_object(document: object) -> RefusedError:
    """Return the 400 for JSON that is not an object."""
    text = "Input should be a valid dictionary or object to extract fields from"
    error = {"type": "model_attributes_type", "loc": ("body",), "msg": text, "input": document}
    return invalid([error])


def invalid(errors: Iterable[Mapping[str, Any]]) -> RefusedError:
    """Return the 400 for a body that does not validate; the errors are those of pydantic."""
    reported = [{**error, "loc": _location(error["loc"])} for error in errors]
    lines = [f"  {_line(error)}" for error in reported[:_MAX_REPORTED_ERRORS]]
    if len(reported) > len(lines):
        lines.append(f"  ...and {len(reported) - len(lines)} more errors")
    return _invalid("\n".join(lines), len(reported), reported[0]["loc"])


def plain(status: HTTPStatus, detail: str) -> RefusedError:
    """Return the answer of the web framework, which vLLM never sees."""
    return RefusedError(status, msgspec.json.encode({"detail": detail}))


def _invalid(lines: str, count: int, param: str | None) -> RefusedError:
    label = "error" if count == 1 else "errors"
    text = f"{count} validation {label}:\n{lines}"
    status = HTTPStatus.BAD_REQUEST
    return RefusedError(status, _body(status, status.phrase, text, param))


def _line(error: Mapping[str, Any]) -> str:
    return str({**error, "input": _summary(error["input"])})


def _summary(value: object) -> str:
    if isinstance(value, list | dict):
        return f"<{type(value).__name__} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= _MAX_INPUT_CHARACTERS else text[:_MAX_INPUT_CHARACTERS] + _CUT


def _location(path: Iterable[str | int]) -> str:
    # Pydantic includes the union member that it tried; vLLM reports fields only.
    return ".".join(str(part) for part in path if part != "str" and "[" not in str(part))


def _body(status: int, kind: str, message: str, param: str | None) -> bytes:
    error = {"message": _clean(message), "type": kind, "param": param, "code": status}
    return msgspec.json.encode({"error": error})


def _clean(message: str) -> str:
    # A lone surrogate from the client cannot be encoded as UTF-8.
    return _PATHS.sub("<path>", message).strip().encode(errors="replace").decode()
