"""The retry of what a smaller pool refuses, in files that lost a part of it."""

import copy

import pytest
import yaml

from extproc.config.settings import Settings
from extproc.envoy.document import Part
from extproc.envoy.fragment import fragment_parts, whole_configuration
from extproc.envoy.render import render_envoy
from extproc.envoy.review import remarks, review
from tests.support import operator_files
from tests.support.envoys import FORMS
from tests.support.operator_files import cluster, manager, routes

HINT = "add a route for x-llm-pool: {} and x-llm-retryable: 1, as `dualpool config envoy` prints it"
SHORT = HINT.format("short")
PREVIOUS = "envoy.retry_priorities.previous_priorities with update_frequency 1"


def pools(*windows):
    return [{"name": f"p{window}", "max_model_len": window} for window in windows]


ROWS = [
    {"models": ["a", "b-*"], "pools": pools(1000, 2000, 3000)},
    {"models": ["*"], "pools": pools(4000, 5000)},
]


def settings(version="1.40", form="auto", **more):
    return Settings.model_validate({"envoy": {"version": version, "form": form}} | more)


def rendered(given=None):
    return yaml.safe_load(render_envoy(given or settings()))


def joined(given, prefix):
    """Return a file with the parts of a fragment, before the route of another application."""
    document = rendered(given)
    parts = fragment_parts(whole_configuration(given), prefix)
    found = manager(document)
    last = found["http_filters"][-1]
    found["early_header_mutation_extensions"] = parts["early_header_mutation_extensions"]
    found["http_filters"] = [*parts["http_filters"], last]
    other = {"match": {"prefix": "/"}, "route": {"cluster": "web"}}
    host = {"name": "all", "domains": ["*"], "routes": [*parts["routes"], other]}
    found["route_config"] = {"name": "all", "virtual_hosts": [host]}
    document["static_resources"]["clusters"] = parts["clusters"]
    return document


def findings(document, given=None):
    """Return findings with the last part of their paths."""
    found = review(given or settings(), Part("", document))
    return [str(each).rpartition("virtual_hosts[0].")[2] for each in found]


def notes(document, given=None):
    return [str(each) for each in remarks(given or settings(), Part("", document))]


def named(document, name):
    """Return the position of a route, and the route."""
    return next((i, r) for i, r in enumerate(routes(document)) if r["name"] == name)


def policy(document, name="short_retryable"):
    return named(document, name)[1]["route"]["retry_policy"]


def remove(document, name):
    return routes(document).pop(named(document, name)[0])


@pytest.mark.parametrize(("version", "form"), FORMS)
@pytest.mark.parametrize(
    "more",
    [{}, {"pools": pools(1000, 2000, 3000)}, {"rows": ROWS}, {"shadow": True}],
    ids=["two", "three", "rows", "shadow"],
)
def test_what_is_rendered_has_the_retry(version, form, more):
    given = settings(version, form, **more)
    whole, below = rendered(given), joined(given, "/llm/")
    assert findings(whole, given) == findings(below, given) == []
    assert notes(whole, given) == notes(below, given) == []


def test_the_names_of_routes_and_clusters_do_not_count():
    text = render_envoy(settings()).replace("short_then_long", "both")
    document = yaml.safe_load(text)
    for route in routes(document):
        del route["name"]
    assert findings(document) == []


@pytest.mark.parametrize(("version", "form"), FORMS)
@pytest.mark.parametrize("prefix", ["", "/llm/", "/"])
def test_a_deleted_route_is_to_be_added(version, form, prefix):
    given, mark = settings(version, form), "llm_" if prefix else ""
    document = joined(given, prefix) if prefix else rendered(given)
    remove(document, f"{mark}short_retryable")
    position, _ = named(document, f"{mark}short")
    text = f"no route before this one retries on long what short refuses: {SHORT}"
    assert findings(document, given) == [f"routes[{position}]: {text}"]


def test_a_deleted_route_for_messages_is_not_that_for_all_paths():
    document = rendered()
    remove(document, "short_retryable_messages")
    position, _ = named(document, "short_messages")
    [text] = findings(document)
    assert text.startswith(f"routes[{position}]: no route before this one retries on long what")


@pytest.mark.parametrize(
    ("pool", "largest"), [("p1000", "p3000"), ("p2000", "p3000"), ("p4000", "p5000")]
)
def test_each_smaller_pool_of_a_row_needs_its_route(pool, largest):
    given = settings(form="observed", rows=ROWS)
    document = rendered(given)
    remove(document, f"{pool}_retryable")
    [text] = findings(document, given)
    assert f"no route before this one retries on {largest} what {pool} refuses: " in text
    assert text.endswith(HINT.format(pool))


@pytest.mark.parametrize(("version", "form"), FORMS)
def test_a_route_that_stands_too_late_is_to_be_moved(version, form):
    given = settings(version, form)
    document = rendered(given)
    late = remove(document, "short_retryable")
    routes(document).append(late)
    position, _ = named(document, "short")
    assert findings(document, given) == [
        f"routes[{position}]: this route hides short_retryable, which retries on long what short "
        "refuses: move that route before it"
    ]
    del late["name"]
    hidden = f"this route hides routes[{len(routes(document)) - 1}], which retries on long"
    assert hidden in findings(document, given)[0]


def test_a_route_that_stands_too_late_but_is_wrong_itself_does_not_help():
    document = rendered(settings(form="observed"))
    late = remove(document, "short_retryable")
    del late["route"]["retry_policy"]
    routes(document).append(late)
    [text] = findings(document, settings(form="observed"))
    assert "no route before this one retries on long what short refuses: " in text


# A change of the route's policy, and the finding that it causes at the route.
LOST = {
    "all codes": (
        {"retriable_status_codes": [503]},
        "retriable_status_codes: 400 and 413 of short are not retried on long: add 400, 413",
    ),
    "one code": (
        {"retriable_status_codes": [400, 502]},
        "retriable_status_codes: 413 of short is not retried on long: add 413",
    ),
    "the reason": (
        {"retry_on": "connect-failure, gateway-error"},
        "retry_on: 400 and 413 of short are not retried on long: add retriable-status-codes",
    ),
    "the attempts": (
        {"num_retries": 0},
        "num_retries: the retries end before long, 0 of 1: set 1",
    ),
    "the priority": (
        {"retry_priority": None},
        f"retry_priority: a retry may go to short again: add {PREVIOUS}",
    ),
    "the priority of the first retry": (
        {"retry_priority": {"typed_config": {"update_frequency": 2}}},
        "num_retries: the retries end before long, 1 of 2: set 2",
    ),
    "its requests": (
        {
            "retriable_request_headers": [
                {"name": "x-llm-retryable", "string_match": {"exact": "2"}}
            ]
        },
        "retriable_request_headers: what short refuses is not retried on long, as its requests "
        "have none of these: add x-llm-retryable",
    ),
}


@pytest.mark.parametrize(("version", "form"), FORMS)
@pytest.mark.parametrize("name", LOST)
def test_what_a_policy_lost_is_found_at_its_place(version, form, name):
    given, (change, text) = settings(version, form), LOST[name]
    document = rendered(given)
    position, _ = named(document, "short_retryable")
    policy(document).update(change)
    assert findings(document, given) == [f"routes[{position}].route.retry_policy.{text}"]


def test_a_route_without_a_policy_needs_one():
    document = rendered()
    position, route = named(document, "short_retryable")
    del route["route"]["retry_policy"]
    assert findings(document) == [
        f"routes[{position}].route.retry_policy: what short refuses is not retried on long: "
        "add one, as `dualpool config envoy` prints it"
    ]


# Other ways to retry a refusal.
EQUAL = {
    "more attempts": {"num_retries": 2},
    "the default of one": {"num_retries": None},
    "by the header of the status": {
        "retry_on": "retriable-headers",
        "retriable_status_codes": [],
        "retriable_headers": [
            {"name": ":status", "string_match": {"exact": "413"}},
            {"name": ":status", "string_match": {"exact": "400"}},
        ],
    },
    "only of these requests": {
        "retriable_request_headers": [{"name": "x-llm-retryable", "string_match": {"exact": "1"}}]
    },
    "of requests that are not known": {
        "retriable_request_headers": [{"name": "x-team", "present_match": True}]
    },
}


@pytest.mark.parametrize("name", EQUAL)
def test_a_policy_may_retry_otherwise(name):
    document = rendered()
    policy(document).update(EQUAL[name])
    assert findings(document) == []


def test_the_policy_of_the_virtual_host_counts_where_the_route_has_none():
    document = rendered()
    host = manager(document)["route_config"]["virtual_hosts"][0]
    host["retry_policy"] = named(document, "short_retryable")[1]["route"].pop("retry_policy")
    assert findings(document) == []


def test_the_policy_of_the_cluster_counts_before_the_routes():
    document = rendered()
    options = {"@type": "x.HttpProtocolOptions", "retry_policy": {"retry_on": "5xx"}}
    cluster(document, "short_then_long")["typed_extension_protocol_options"] = {"http": options}
    assert any(
        "HttpProtocolOptions" not in text and "400 and 413 of short are not retried on long" in text
        for text in findings(document)
    )


@pytest.mark.parametrize("level", ["route", "virtual host"])
def test_a_policy_of_another_type_is_noted(level):
    document = rendered()
    own = {"@type": "type.googleapis.com/acme.Retry"}
    route = named(document, "short_retryable")[1]["route"]
    del route["retry_policy"]
    host = manager(document)["route_config"]["virtual_hosts"][0]
    (route if level == "route" else host)["retry_policy_typed_config"] = own
    assert findings(document) == []
    [note] = notes(document)
    assert note.endswith("retry_policy_typed_config: not checked: a retry policy of another type")


def test_a_cluster_of_the_pool_alone_cannot_be_retried_on_another():
    document = rendered()
    position, route = named(document, "short_retryable")
    route["route"]["cluster"] = "short"
    assert findings(document) == [
        f"routes[{position}].route.cluster: short has no server of long, so a retry goes to short "
        "again: set an aggregate cluster of short and long"
    ]


def test_an_aggregate_without_the_largest_pool_is_found_once():
    document = rendered()
    config = cluster(document, "short_then_long")["cluster_type"]["typed_config"]
    config["clusters"] = ["short"]
    [text] = findings(document)
    assert text.endswith(
        "cluster_type.typed_config.clusters: a retry cannot reach long: add it behind short"
    )


@pytest.mark.parametrize(("retries", "count"), [(1, 1), (2, 0)])
def test_a_pool_between_takes_a_retry_of_its_own(retries, count):
    given = settings(form="observed", pools=pools(1000, 2000, 3000))
    document = rendered(given)
    config = cluster(document, "p1000_then_p3000")["cluster_type"]["typed_config"]
    config["clusters"] = ["p1000", "p2000", "p3000"]
    policy(document, "p1000_retryable")["num_retries"] = retries
    found = findings(document, given)
    assert len(found) == count
    assert all("the retries end before p3000, 1 of 2: set 2" in text for text in found)


def test_a_composite_cluster_needs_no_priority():
    document = rendered()
    kind = "type.googleapis.com/envoy.extensions.clusters.composite.v3.ClusterConfig"
    config = cluster(document, "short_then_long")["cluster_type"]["typed_config"]
    config |= {"@type": kind, "clusters": [{"name": "short"}, {"name": "long"}]}
    policy(document).pop("retry_priority")
    assert findings(document) == []


@pytest.mark.parametrize(
    "action",
    [{"route": {"cluster": "long", "timeout": "0s"}}, {"direct_response": {"status": 404}}],
)
def test_a_route_that_leads_marked_requests_elsewhere_is_found(action):
    document = rendered()
    position, route = named(document, "short_retryable")
    del route["route"]
    route.update(action)
    [text] = findings(document)
    assert text.startswith(f"routes[{position}]")
    assert text.endswith(
        "requests for short with x-llm-retryable go elsewhere: send them to short_then_long"
    )


def test_a_cluster_by_its_header_may_have_a_route_for_retries():
    document = operator_files.load("cluster_header")
    source = rendered()
    [chosen, _] = routes(document)
    retried = copy.deepcopy(named(source, "short_retryable")[1])
    routes(document).insert(0, retried)
    document["static_resources"]["clusters"].append(cluster(source, "short_then_long"))
    retried["request_body_buffer_limit"] = chosen["request_body_buffer_limit"]
    assert findings(document, Settings()) == []
    assert not any("retried" in note for note in notes(document, Settings()))


def test_a_file_without_any_retry_on_the_largest_pool_is_noted_not_refused():
    document = operator_files.load("virtual_hosts")
    [note] = [each for each in notes(document, Settings()) if "retried" in each]
    text = f"what short refuses as too long is not retried on long: {SHORT}"
    assert note.endswith(f"virtual_hosts[2].routes[1]: {text}")
