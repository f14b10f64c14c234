"""Routes to the pools behind a route of another application."""

import copy

import pytest
import yaml

from extproc.config.load import load
from extproc.doctor.checks import conclude
from extproc.doctor.facts import EnvoyFacts, Facts, Unseen
from extproc.envoy.document import Part
from extproc.envoy.review import review
from tests.support.joined_envoy import joined
from tests.support.operator_files import routes
from tests.support.paths import ROOT

SETTINGS = load(ROOT / "envoy" / "dualpool.yaml")
JOINED = yaml.safe_load(joined())


def with_route(match, position=0, **action):
    """Return the joined file with one more route, and that route's action."""
    document = copy.deepcopy(JOINED)
    route = {"match": match, **(action or {"route": {"cluster": "web"}})}
    routes(document).insert(position, route)
    return document


def findings(document):
    return [str(each) for each in review(SETTINGS, Part("", document))]


def header(name, **condition):
    return {"prefix": "/llm/", "headers": [{"name": name, **condition}]}


SOME = (
    header("authorization", present_match=False),
    header("x-api-key", present_match=True, invert_match=True),
    header("content-type", string_match={"prefix": "application/json"}, invert_match=True),
    header("content-length", present_match=True),
    header("x-canary", present_match=True),
    header(":authority", string_match={"exact": "a.example"}, invert_match=True),
)
"""What some requests meet and some do not."""

POST = header(":method", string_match={"exact": "POST"})


def undecided():
    names = [each.get("name") for each in routes(JOINED)]
    return names.index("llm_undecided")


def test_routes_that_were_pasted_behind_the_last_one_are_hidden():
    document = copy.deepcopy(JOINED)
    found = routes(document)
    found[:] = found[-2:] + found[:-2]
    [text] = findings(document)
    assert text.endswith(
        "routes[1]: this route (prefix /, cluster web) hides the routes to the pools that follow "
        "it from requests to /llm/v1/chat/completions: move those routes before it, part 3 of "
        "`dualpool config envoy --fragment`"
    )


@pytest.mark.parametrize(
    "match",
    [
        {"prefix": "/llm/"},
        {"prefix": "/llm/v1/chat"},
        {"path_separated_prefix": "/llm"},
        {"safe_regex": {"regex": "/llm/v1/.*"}},
        POST,
    ],
)
@pytest.mark.parametrize("position", [0, undecided()])
def test_a_route_that_takes_all_requests_to_an_inference_path_hides_routes(match, position):
    [text] = findings(with_route(match, position))
    assert f"routes[{position}]: this route (" in text
    assert "cluster web) hides the routes to the pools" in text


def test_the_path_of_one_api_is_hidden_only_before_its_routes():
    messages = {"prefix": "/llm/v1/messages"}
    [text] = findings(with_route(messages))
    assert "from requests to /llm/v1/messages: " in text
    assert findings(with_route(messages, undecided())) == []


@pytest.mark.parametrize("api", ["completions", "responses"])
def test_so_does_one_that_takes_all_requests_to_another_api(api):
    [text] = findings(with_route({"prefix": f"/llm/v1/{api}"}))
    assert f"from requests to /llm/v1/{api}: move" in text


@pytest.mark.parametrize("path", ["/llm/v1/embeddings", "/llm/v1/rerank"])
def test_models_that_generate_nothing_may_be_elsewhere(path):
    assert findings(with_route({"prefix": path})) == []


def test_a_route_is_found_behind_one_that_takes_only_some():
    document = with_route({"prefix": "/llm/"})
    routes(document).insert(0, {"match": SOME[0], "route": {"cluster": "shop"}})
    [text] = findings(document)
    assert "routes[1]: this route (prefix /llm/, cluster web) hides" in text


@pytest.mark.parametrize("kind", ["redirect", "direct_response"])
def test_so_does_a_route_without_a_cluster(kind):
    [text] = findings(with_route({"prefix": "/llm/"}, **{kind: {}}))
    assert f"this route (prefix /llm/, {kind}) hides" in text


@pytest.mark.parametrize(
    "match",
    [
        {"path": "/llm/health"},
        {"path": "/llm/"},
        {"prefix": "/llm/chat"},
        {"prefix": "/llm/v1/models"},
        {"prefix": "/llm/", "query_parameters": [{"name": "key", "present_match": True}]},
        header("content-length", range_match={"start": 1 << 22, "end": 1 << 40}),
        header("x-llm-pool", string_match={"exact": "other"}),
        header(":method", string_match={"exact": "GET"}),
    ],
)
def test_a_route_for_other_requests_hides_nothing(match):
    assert findings(with_route(match)) == []


@pytest.mark.parametrize("match", SOME)
@pytest.mark.parametrize("position", range(len(routes(JOINED)) + 1))
def test_a_route_for_some_requests_is_no_fault_wherever_it_stands(match, position):
    assert findings(with_route(match, position)) == []


def test_a_route_to_an_exact_path_is_hidden_too():
    document = copy.deepcopy(JOINED)
    found = routes(document)
    for each in found[:-2]:
        each["match"].pop("prefix", each["match"].pop("safe_regex", None))
        each["match"]["path"] = "/ai/completions"
    found.insert(0, {"match": {"prefix": "/ai"}, "route": {"cluster": "web"}})
    assert any("from requests to /ai/completions: move" in each for each in findings(document))


def test_the_doctor_finds_it_in_the_configuration_that_runs():
    envoy = EnvoyFacts(Part("", with_route({"prefix": "/"})), (), {}, ())
    told = [str(each) for each in conclude(Facts(SETTINGS, Unseen("down"), envoy))]
    [text] = [each for each in told if "hides" in each]
    assert text.startswith("filters: this route (prefix /, cluster web) hides the routes")
    assert text.endswith(
        "; move those routes before it, part 3 of `dualpool config envoy --fragment`"
    )
