"""Which route of Envoy's a request takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.envoy.document import Part
from extproc.envoy.route_match import (
    SampleRequest,
    accepts_header,
    matches,
    samples,
    text_matches,
)


def asked(path="/v1/chat/completions", **headers):
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return SampleRequest(path, {":method": "POST", **named}, Part("", None))


def match(**conditions):
    return Part("match", conditions)


def header(**conditions):
    return match(prefix="/", headers=[{"name": "x-a", **conditions}])


@pytest.mark.parametrize(
    ("conditions", "path", "holds"),
    [
        ({"prefix": "/v1/"}, "/v1/x", True),
        ({"prefix": "/v1/"}, "/v2/x", False),
        ({"prefix": "/V1/", "case_sensitive": False}, "/v1/x", True),
        ({"path": "/v1/x"}, "/v1/x", True),
        ({"path": "/v1/x"}, "/v1/x/", False),
        ({"path_separated_prefix": "/v1"}, "/v1", True),
        ({"path_separated_prefix": "/v1"}, "/v1/x", True),
        ({"path_separated_prefix": "/v1"}, "/v10", False),
        ({"safe_regex": {"regex": "/v[0-9]/.*"}}, "/v1/x", True),
        ({"safe_regex": {"regex": "/v[0-9]"}}, "/v1/x", False),
        ({"safe_regex": {"regex": "("}}, "/v1/x", False),
        ({}, "/v1/x", False),
    ],
)
def test_a_path_meets_a_condition(conditions, path, holds):
    assert matches(match(**conditions), asked(path)) is holds


@pytest.mark.parametrize(
    ("conditions", "value", "holds"),
    [
        ({"string_match": {"exact": "b"}}, "b", True),
        ({"string_match": {"exact": "B", "ignore_case": True}}, "b", True),
        ({"string_match": {"suffix": "b"}}, "ab", True),
        ({"string_match": {"contains": "b"}}, "abc", True),
        ({"string_match": {"prefix": "b"}}, "ab", False),
        ({"string_match": {"safe_regex": {"regex": "a+"}}}, "aa", True),
        ({"exact_match": "b"}, "b", True),
        ({"exact_match": "b", "invert_match": True}, "b", False),
        ({"present_match": True}, "b", True),
        ({"present_match": False}, "b", False),
        ({"range_match": {"start": 10, "end": 20}}, "19", True),
        ({"range_match": {"start": 10, "end": 20}}, "20", False),
        ({"range_match": {"start": 10, "end": 20}}, "many", False),
        ({}, "b", True),
    ],
)
def test_a_header_meets_a_condition(conditions, value, holds):
    assert matches(header(**conditions), asked(x_a=value)) is holds


def test_an_absent_header_meets_only_an_inverted_condition():
    assert not matches(header(string_match={"exact": "b"}), asked())
    assert matches(header(string_match={"exact": "b"}, invert_match=True), asked())
    assert matches(header(present_match=True, invert_match=True), asked())


def test_what_cannot_be_evaluated_holds_for_the_route_of_the_sample_alone():
    route = match(prefix="/", query_parameters=[{"name": "a"}])
    [sample, *_] = samples(route)
    assert matches(route, sample)
    assert not matches(route, asked())
    assert not matches(match(prefix="/", dynamic_metadata=[{"filter": "x"}]), sample)


@pytest.mark.parametrize(
    "conditions",
    [
        {"prefix": "/llm"},
        {"path": "/v1/completions"},
        {"path_separated_prefix": "/llm"},
        {"safe_regex": {"regex": "/llm/(a|b)"}},
        {"prefix": "/", "headers": [{"name": "x-a", "range_match": {"start": 5, "end": 9}}]},
        {
            "prefix": "/",
            "headers": [{"name": "x-a", "string_match": {"safe_regex": {"regex": "z"}}}],
        },
        {"prefix": "/", "headers": [{"name": "x-llm-pool", "string_match": {"exact": "short"}}]},
    ],
)
def test_a_sample_meets_the_conditions_that_it_was_made_from(conditions):
    found = list(samples(match(**conditions)))
    assert found
    assert all(matches(match(**conditions), each) for each in found)


def test_a_method_is_refused_by_its_condition():
    gets = match(
        headers=[{"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}]
    )
    assert accepts_header(gets, ":method", "GET")
    assert not accepts_header(gets, ":method", "POST")
    assert accepts_header(match(prefix="/"), ":method", "POST")


def test_a_matcher_without_a_condition_matches_nothing():
    assert not text_matches(Part("", None), "x-llm-pool")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["name", "prefix", "path", "headers", "string_match", "regex", "safe_regex",
                         "range_match", "start", "end", "exact"]), inner, max_size=3),
)  # fmt: skip


@given(VALUES)
def test_no_condition_is_too_odd(value):
    for each in samples(Part("", value)):
        matches(Part("", value), each)
