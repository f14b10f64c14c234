"""Decoding of bodies, as a running vLLM decoded them."""

import json
from codecs import BOM_UTF8

import pytest
from pydantic import BaseModel

from extproc.simulator.pool.body import decode, first_valid, validated
from extproc.simulator.pool.refusal import RefusedError

TEXT = '{"a": "\u20ac"}'


class _A(BaseModel):
    a: str


class _B(BaseModel):
    b: str


def message(error: RefusedError) -> str:
    return str(json.loads(error.body)["error"]["message"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_body_of_any_encoding_of_unicode_is_read(encoding):
    assert decode(TEXT.encode(encoding)) == {"a": "\u20ac"}


def test_numbers_that_json_lacks_are_read():
    assert decode(b'{"a": Infinity}') == {"a": float("inf")}


@pytest.mark.parametrize("body", [b"\x1f\x8b\x08 gzip", TEXT.encode("utf-16")[:-1]])
def test_what_is_not_text_is_refused_by_the_framework(body):
    with pytest.raises(RefusedError) as caught:
        decode(body)
    assert caught.value.body == b'{"detail":"There was an error parsing the body"}'


def test_a_byte_order_mark_alone_is_not_an_empty_body():
    with pytest.raises(RefusedError) as caught:
        decode(BOM_UTF8)
    assert "'loc': 'body.0', 'msg': 'JSON decode error'" in message(caught.value)


def test_the_first_valid_shape_is_taken():
    assert first_valid((_A, _B), {"b": "x"}) == _B(b="x")
    assert validated(_A, {"a": "x"}) == _A(a="x")


def test_without_a_valid_shape_the_faults_of_all_are_told():
    with pytest.raises(RefusedError) as caught:
        first_valid((_A, _B), {})
    assert message(caught.value).startswith("2 validation errors:")
