"""Routes looked up by what requests have: the same as if each route were asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.envoy.document import Part
from extproc.envoy.route_match import matches, samples
from extproc.envoy.route_table import RouteTable


def routes(*conditions):
    return [Part(str(i), {"match": each}) for i, each in enumerate(conditions)]


def taken(found, request):
    return [each.path for each in RouteTable(found).matching(request)]


def asked(conditions):
    """Return the first sample of a match."""
    return next(samples(Part("match", conditions)))


def test_a_sample_without_the_decision_takes_the_next_route():
    chosen = {"headers": [{"name": "x-llm-pool", "string_match": {"exact": "short"}}]}
    found = routes({"prefix": "/", **chosen}, {"prefix": "/"})
    sample = asked({"prefix": "/", **chosen})
    assert taken(found, sample) == ["0", "1"]
    assert taken(found, sample.undecided()) == ["1"]
    assert taken(found, sample.undecided().with_pool("short")) == ["0", "1"]
    assert taken(found, sample.with_pool("long")) == ["1"]


def test_no_route_may_match():
    assert taken([], asked({"prefix": "/"})) == []


REGEXES = (
    "/v1/.*",
    "/v1?/x",
    "/a|/v1/x",
    "/(a|v1)/x",
    "/v[1|]/x",
    r"/v1\|x|.*",
    "/v+1/x",
    "(",
    ".*",
)


@pytest.mark.parametrize("regex", REGEXES)
@pytest.mark.parametrize("path", ["/v1/x", "/v/x", "/a", "/vv1/x", "/v|/x"])
def test_a_regular_expression_is_found_by_the_paths_that_match_it(regex, path):
    found = routes({"safe_regex": {"regex": regex}})
    request = asked({"path": path})
    assert bool(taken(found, request)) is matches(found[0].at("match"), request)


TEXTS = st.sampled_from(["", "/", "/v1", "/V1", "/v1/", "/v1/x", "/v1/chat/completions", "Σ", "ς"])
WORDS = st.sampled_from(["a", "b", "A", ""])
STRINGS = st.fixed_dictionaries(
    {},
    optional={"exact": WORDS, "prefix": WORDS, "ignore_case": st.booleans()},
)
HEADERS = st.fixed_dictionaries(
    {"name": st.sampled_from(["x-a", "X-A", "x-b", ":method", "x-llm-pool"])},
    optional={
        "string_match": STRINGS,
        "exact_match": WORDS | st.integers(),
        "present_match": st.booleans(),
        "invert_match": st.booleans(),
        "range_match": st.just({"start": 1, "end": 9}),
    },
)
MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "prefix": TEXTS,
        "path": TEXTS,
        "path_separated_prefix": TEXTS,
        "safe_regex": st.fixed_dictionaries({"regex": TEXTS | st.sampled_from(REGEXES)}),
        "case_sensitive": st.booleans(),
        "headers": st.lists(HEADERS, max_size=3),
        "query_parameters": st.just([{"name": "a"}]),
    },
)


@given(st.lists(MATCHES, max_size=6))
def test_the_routes_are_those_that_match(given_matches):
    found = routes(*given_matches)
    for route in found:
        for sample in samples(route.at("match")):
            for request in (sample, sample.undecided(), sample.with_pool("a")):
                each = [r.path for r in found if matches(r.at("match"), request)]
                assert taken(found, request) == each
