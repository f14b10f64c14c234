"""Decodes and validates the JSON body of a request as vLLM's web framework does.

Invariant: the text of every fault is that of the json module or of pydantic, which vLLM reports.
"""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from extproc.simulator.pool.refusal import (
    broken_json,
    invalid,
    missing_body,
    not_an_object,
    plain,
)

_Shape = TypeVar("_Shape", bound=BaseModel)


def decode(body: bytes) -> dict[str, Any]:
    """Decode a body of any encoding that the json module detects; raises RefusedError.

    NaN and Infinity are accepted, as by vLLM, whose own checks refuse them where they matter.
    """
    if not body:
        raise missing_body()
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise broken_json(error.msg, error.pos) from None
    except (
        ValueError,
        RecursionError,
    ):  # not text, or a number of 5,000 digits, or 5,000 nested brackets
        raise plain(HTTPStatus.BAD_REQUEST, "There was an error parsing the body") from None
    if document is None:
        raise missing_body()
    if isinstance(document, dict):
        return document
    raise not_an_object(document)


def validated(shape: type[_Shape], document: object) -> _Shape:
    """Return the document as a value of `shape`; raises RefusedError."""
    return first_valid((shape,), document)


def first_valid(shapes: Sequence[type[_Shape]], document: object) -> _Shape:
    """Return the document as the first shape that it has; raises RefusedError with all faults."""
    faults: list[ErrorDetails] = []
    for shape in shapes:
        try:
            return shape.model_validate(document, from_attributes=True)
        except ValidationError as error:
            faults += error.errors(include_url=False)
    raise invalid([{**fault, "loc": ("body", *fault["loc"])} for fault in faults])
