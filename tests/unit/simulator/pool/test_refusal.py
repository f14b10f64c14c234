"""The error bodies of vLLM 0.32, each as a running vLLM wrote it."""

import json
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.simulator.pool.refusal import (
    RefusedError,
    broken_json,
    invalid,
    missing_body,
    not_an_object,
    plain,
    refused,
    unknown_model,
    wrong_media_type,
)


def read(refusal: RefusedError) -> dict[str, object]:
    return json.loads(refusal.body)["error"]


def fault(
    location: tuple[str | int, ...] = ("body", "n"), value: object = "x"
) -> dict[str, object]:
    return {"type": "int_parsing", "loc": location, "msg": "Input should be", "input": value}


def test_a_value_that_vllm_rejects_is_a_bad_request():
    refusal = refused("n must be at least 1", param="n", value=0)
    assert refusal.status == HTTPStatus.BAD_REQUEST
    assert read(refusal) == {
        "message": "n must be at least 1 (parameter=n, value=0)",
        "type": "BadRequestError",
        "param": "n",
        "code": 400,
    }


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "no"),
        ({"param": "n"}, "no (parameter=n)"),
        ({"value": 0}, "no (value=0)"),
        ({"param": "n", "value": 0}, "no (parameter=n, value=0)"),
    ],
)
def test_a_message_names_what_is_known(facts, text):
    assert read(refused("no", **facts))["message"] == text


def test_an_unknown_model_is_not_found():
    refusal = unknown_model("gpt", "tiny")
    assert refusal.status == HTTPStatus.NOT_FOUND
    error = read(refusal)
    assert (error["type"], error["param"], error["code"]) == ("NotFoundError", "model", 404)
    assert error["message"] == "The model `gpt` does not exist. Valid aliases: tiny."


def test_another_media_type_is_one_validation_error():
    error = read(wrong_media_type())
    assert error["message"].startswith("1 validation error:\n  Unsupported Media Type")
    assert error["param"] is None


def test_broken_json_names_the_position():
    error = read(broken_json("Expecting value", 7))
    assert "'loc': 'body.7'" in error["message"]
    assert "'ctx': {'error': 'Expecting value'}" in error["message"]
    assert error["param"] == "body.7"


def test_a_missing_body_is_a_missing_field():
    assert "'msg': 'Field required'" in read(missing_body())["message"]


@pytest.mark.parametrize(
    ("document", "shown"),
    [([1, 2], "<list of 2 items>"), (5, "5"), ("x", "x"), (True, "True")],
)
def test_a_body_that_is_no_object_is_summed_up(document, shown):
    assert f"'input': '{shown}'" in read(not_an_object(document))["message"]


def test_errors_are_counted_and_the_first_is_the_param():
    error = read(invalid([fault(("body", "n")), fault(("body", "stream"))]))
    assert error["message"].startswith("2 validation errors:\n")
    assert error["param"] == "body.n"


def test_eleven_errors_are_ten_and_a_rest():
    lines = read(invalid([fault()] * 11))["message"].splitlines()
    assert len(lines) == 12
    assert lines[-1].strip() == "...and 1 more errors"


def test_ten_errors_are_all_reported():
    assert len(read(invalid([fault()] * 10))["message"].splitlines()) == 11


@pytest.mark.parametrize(("length", "cut"), [(200, False), (201, True)])
def test_a_long_value_is_cut(length, cut):
    message = read(invalid([fault(value="v" * length)]))["message"]
    assert ("...[truncated]" in message) is cut
    assert ("v" * 201 in message) is False


def test_the_member_of_a_union_is_not_reported():
    location = ("body", "prompt", "list[int]", 0, "str")
    assert read(invalid([fault(location)]))["param"] == "body.prompt.0"


@pytest.mark.parametrize("path", ["/usr/lib/vllm/x.py", "/root/a", "/srv/models/m.json", "/a/b.py"])
def test_paths_are_removed(path):
    assert read(refused(f"cannot open {path} now"))["message"] == "cannot open <path> now"


@pytest.mark.parametrize("text", ["/v1/chat/completions", "a/b", "1/2"])
def test_what_is_no_path_of_a_file_stays(text):
    assert read(refused(text))["message"] == text


def test_the_frameworks_own_answer_has_a_detail_alone():
    refusal = plain(HTTPStatus.BAD_REQUEST, "There was an error parsing the body")
    assert json.loads(refusal.body) == {"detail": "There was an error parsing the body"}


@given(st.text())
def test_every_message_can_be_encoded(text):
    assert isinstance(read(refused(text))["message"], str)


def test_a_lone_surrogate_becomes_a_question_mark():
    assert read(refused("bad \ud800 value"))["message"] == "bad ? value"
