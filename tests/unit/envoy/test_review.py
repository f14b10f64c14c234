"""An Envoy file compared with the settings."""

import copy
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extproc.cli import main
from extproc.config.settings import Settings
from extproc.envoy.document import EnvoyFileError, Part, read_envoy
from extproc.envoy.render import render_envoy
from extproc.envoy.review import remarks, review
from tests.support.envoys import FORMS


def rendered(**settings):
    return yaml.safe_load(render_envoy(Settings.model_validate(settings)))


def findings(document, **settings):
    return [str(each) for each in review(Settings.model_validate(settings), Part("", document))]


def listener(document):
    return document["static_resources"]["listeners"][0]


def manager(document):
    return listener(document)["filter_chains"][0]["filters"][0]["typed_config"]


def host(document):
    return manager(document)["route_config"]["virtual_hosts"][0]


def filters(document):
    return {each["name"]: each["typed_config"] for each in manager(document)["http_filters"]}


def router(document):
    return filters(document)["envoy.filters.http.ext_proc"]


def observer(document):
    return filters(document)["llm.observer"]["extension_config"]["typed_config"]


def note(document):
    """Return what the matcher around the observer reads."""
    [matcher] = filters(document)["llm.observer"]["xds_matcher"]["matcher_list"]["matchers"]
    predicate = matcher["predicate"]["not_matcher"]["single_predicate"]
    return predicate["input"]["typed_config"]


def cluster(document, name="dualpool"):
    [found] = [each for each in document["static_resources"]["clusters"] if each["name"] == name]
    return found


def told(document):
    [group] = cluster(document, "short")["load_assignment"]["endpoints"]
    return group["lb_endpoints"][0]["metadata"]["filter_metadata"]["llm"]


# A change of the file, and the finding that it causes.
WRONG = {
    "a pool is called otherwise": (
        lambda d: cluster(d, "short").update(name="shorts"),
        "static_resources.clusters: no cluster is named 'short': did you mean 'shorts'?",
    ),
    "the window of an endpoint": (
        lambda d: told(d).update(max_model_len=4096),
        "llm.max_model_len: the window of cluster short is 4096, which differs from the settings: "
        "set 8192",
    ),
    "the name of an endpoint": (
        lambda d: told(d).update(pool="long"),
        "llm.pool: the pool of cluster short is 'long', which differs from the settings: set short",
    ),
    "no cluster for the service": (
        lambda d: cluster(d).update(name="other"),
        "envoy_grpc.cluster_name: no cluster is named 'dualpool'",
    ),
    "no HTTP/2": (
        lambda d: cluster(d).pop("typed_extension_protocol_options"),
        "gRPC needs HTTP/2: set http2_protocol_options",
    ),
    "another port": (
        lambda d: cluster(d)["load_assignment"].update(
            rendered(listen={"grpc": "a:50052"})["static_resources"]["clusters"][0][
                "load_assignment"
            ]
        ),
        "load_assignment.endpoints: 50052 differs from listen.grpc: set 50051",
    ),
    "the breaker for requests": (
        lambda d: cluster(d).pop("circuit_breakers"),
        "circuit_breakers: at most 1024 concurrent streams: raise max_requests",
    ),
    "the breaker for retries": (
        lambda d: cluster(d, "short_then_long").pop("circuit_breakers"),
        "circuit_breakers: at most 3 concurrent retries: raise max_retries",
    ),
    "TLS that the service does not speak": (
        lambda d: cluster(d).update(transport_socket={}),
        "transport_socket: the service does not use TLS: remove it, or set listen.tls_cert",
    ),
    "too short a wait": (
        lambda d: router(d).update(message_timeout="0.01s"),
        "message_timeout: 0.01s differs from envoy.message_timeout_ms: set 1s",
    ),
    "too long a wait": (
        lambda d: router(d).update(message_timeout="60s"),
        "message_timeout: 60s differs from envoy.message_timeout_ms: set 1s",
    ),
    "another wait": (
        lambda d: router(d).pop("message_timeout"),
        "message_timeout: 0.2s differs from envoy.message_timeout_ms: set 1s",
    ),
    "no request headers": (
        lambda d: router(d)["processing_mode"].update(request_header_mode="SKIP"),
        "request_header_mode: the headers are sent on before the body is read: set SEND",
    ),
    "a streamed body": (
        lambda d: router(d)["processing_mode"].update(request_body_mode="STREAMED"),
        "request_body_mode: STREAMED cannot change the route: set BUFFERED",
    ),
    "no body": (
        lambda d: router(d).pop("processing_mode"),
        "request_body_mode: NONE cannot change the route: set BUFFERED",
    ),
    "requests fail with the service": (
        lambda d: router(d).pop("failure_mode_allow"),
        "failure_mode_allow: requests fail while the service is down: set true",
    ),
    "so does the observer": (
        lambda d: observer(d).update(failure_mode_allow=False),
        "failure_mode_allow: requests fail while the service is down: set true",
    ),
    "clients choose their pool": (
        lambda d: manager(d).pop("early_header_mutation_extensions"),
        "early_header_mutation_extensions: clients can choose their pool",
    ),
    "another default": (
        lambda d: host(d)["routes"][-1]["route"].update(cluster="short"),
        "route.cluster: requests without x-llm-pool go to 'short': set 'long', the largest pool",
    ),
    "no default": (
        lambda d: host(d)["routes"].pop(),
        "routes: no route matches requests without x-llm-pool: add a last one to long",
    ),
    "no route to a pool": (
        lambda d: host(d).update(routes=host(d)["routes"][-1:]),
        "routes: no route matches x-llm-pool: short: add one",
    ),
    "answers are cut off": (
        lambda d: host(d)["routes"][-1]["route"].pop("timeout"),
        "route.timeout: long answers are cut off after 15s: set 0s",
    ),
    "a small buffer": (
        lambda d: host(d).pop("request_body_buffer_limit"),
        "bytes gets 413: set 33554432",
    ),
    "a small cap": (
        lambda d: filters(d)["envoy.filters.http.body_size_limit"].update(max_request_bytes=9),
        "max_request_bytes: a body above 9 bytes gets 413: set 33554432",
    ),
    "a buffer above the message": (
        lambda d: [
            host(d).update(request_body_buffer_limit=1 << 27),
            manager(d)["http_filters"].pop(0),
        ],
        "a body of 134217728 bytes exceeds listen.max_message_bytes, 67108864: set 33554432",
    ),
    "the decision is not kept": (
        lambda d: router(d).pop("metadata_options"),
        "receiving_namespaces.untyped: ",
    ),
    "the decision is not shown": (
        lambda d: observer(d).pop("metadata_options"),
        "forwarding_namespaces.untyped: ",
    ),
    "the observer is matched by another key": (
        lambda d: note(d).update(path=[{"key": "observe"}]),
        "xds_matcher: the service cannot choose whose answers it sees: match its note",
    ),
    "the observer is matched by others' metadata": (
        lambda d: note(d).update(filter="envoy.lb"),
        "xds_matcher: the service cannot choose whose answers it sees: match its note",
    ),
    "the usage is not shown": (
        lambda d: observer(d)["metadata_options"]["forwarding_namespaces"].pop("typed"),
        "forwarding_namespaces.typed: ",
    ),
    "the trailers are not shown": (
        lambda d: observer(d)["processing_mode"].update(response_trailer_mode="SKIP"),
        "response_trailer_mode: the service does not get the usage: set SEND",
    ),
    "the service is not asked": (
        lambda d: router(d).update(observability_mode=True),
        "no ext_proc filter calls the service",
    ),
}


def unwrapped(document):
    """Let the observer run for all requests."""
    filters(document)["llm.observer"].update(
        filters(document)["llm.observer"].pop("extension_config")["typed_config"]
    )
    del filters(document)["llm.observer"]["xds_matcher"]
    return document


def test_a_reader_of_usage_in_the_wrong_place_is_to_be_moved():
    document = rendered(envoy={"form": "trailers"})
    chain = manager(document)["http_filters"]
    names = [each["name"] for each in chain]
    chain.insert(0, chain.pop(names.index("envoy.filters.http.ai_protocol_manager")))
    [text] = findings(document, envoy={"form": "trailers"})
    assert text.endswith(": move envoy.filters.http.ai_protocol_manager after llm.observer")


def ordered(*names):
    """Return findings about the filters in this order, and their texts alone."""
    document = rendered(envoy={"form": "trailers"})
    chain = manager(document)["http_filters"]
    named = {each["name"].rpartition(".")[2]: each for each in chain}
    chain[:] = [named.pop(name) for name in names] + [*named.values()]
    return [each.rpartition("]: ")[2] for each in findings(document, envoy={"form": "trailers"})]


@pytest.mark.parametrize("names", [("observer", "ai_protocol_manager"), ("observer",)])
def test_what_waits_for_the_decision_before_it_is_made_is_to_be_moved(names):
    moved = [text for text in ordered(*names) if "is skipped" in text]
    assert len(moved) == len(names)
    assert moved[0] == (
        "llm.observer is skipped for all requests, as envoy.filters.http.ext_proc decides after "
        "it: move it after envoy.filters.http.ext_proc"
    )


def test_what_hides_usage_after_the_decision_is_to_be_moved():
    [text] = ordered("body_size_limit", "ext_proc", "observer", "ai_protocol_manager", "lua")
    assert text == (
        "the service does not ask for usage, as envoy.filters.http.lua, which would hide it, has "
        "not run yet: move it before envoy.filters.http.ext_proc"
    )


def test_what_follows_envoys_router_is_to_be_moved():
    [text] = [each for each in ordered("router") if "end of the list" in each]
    assert text == (
        "Envoy refuses filters after envoy.filters.http.router: move it to the end of the list"
    )


def test_of_a_reversed_chain_each_filter_is_to_be_moved():
    told = " ".join(
        ordered("router", "ai_protocol_manager", "observer", "ext_proc", "lua", "body_size_limit")
    )
    for name in ("router", "ai_protocol_manager", "lua"):
        assert f"envoy.filters.http.{name}" in told
    assert "llm.observer is skipped" in told
    assert told.count("has not accepted yet: move it after envoy.filters.http.body_size_limit") == 2


def test_an_observer_of_all_requests_is_no_fault_but_remarked():
    document = unwrapped(rendered())
    assert findings(document) == []
    [remark] = remarks(Settings(), Part("", document))
    assert "http_filters[3]: llm.observer runs for every request" in str(remark)


@pytest.mark.parametrize("form", ["trailers", "observed", "single"])
def test_of_what_is_rendered_nothing_is_remarked(form):
    assert remarks(Settings(), Part("", rendered(envoy={"form": form}))) == ()


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found_with_its_place_and_the_fix(name):
    change, text = WRONG[name]
    document = rendered()
    change(document)
    assert any(text in found for found in findings(document)), findings(document)


@pytest.mark.parametrize(("version", "form"), FORMS)
@pytest.mark.parametrize("windows", [(8192, 65536), (8192, 32768, 131072)])
def test_what_is_rendered_agrees(version, form, windows):
    pools = [{"name": f"p{window}", "max_model_len": window} for window in windows]
    settings = {"pools": pools, "envoy": {"version": version, "form": form}}
    assert findings(rendered(**settings), **settings) == []


@pytest.mark.parametrize(
    ("gone", "beside"),
    [("short_messages", "short_retryable_messages"), ("short", "short_retryable")],
)
def test_a_decisions_route_is_missing_though_other_paths_have_one(gone, beside):
    document = rendered()
    routes = host(document)["routes"]
    routes[:] = [each for each in routes if each["name"] != gone]
    position = [each["name"] for each in routes].index(beside)
    [text] = findings(document)
    assert text.endswith(
        f"routes[{position}]: no route on the paths of this one matches x-llm-pool: short: add one"
    )


def test_settings_that_change_are_found_in_a_file_that_does_not():
    workers = findings(rendered(), workers=2)
    assert len(workers) == 1
    assert workers[0].endswith("50051 differs from listen.grpc: set 50051, 50052")


def test_sizes_that_a_smaller_pool_gets_undecided_are_those_of_the_settings():
    pools = [
        {"name": "short", "max_model_len": 8192, "threshold": 1000},
        {"name": "long", "max_model_len": 65536},
    ]
    stale = findings(rendered(), pools=pools)
    assert any("20480 is more than pools.short permits: set 2500" in each for each in stale)
    fail_open = {"envoy": {"fail_open": "largest"}}
    assert any("fail_open is largest: remove" in each for each in findings(rendered(), **fail_open))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"large_body_bytes": 1 << 23}, "start: 4194305 differs from envoy.large_body_bytes: set"),
        ({"large_body_bytes": 0}, "envoy.large_body_bytes is 0: remove this route"),
    ],
)
def test_the_length_above_which_a_body_is_not_read_is_that_of_the_settings(changes, text):
    [found] = findings(rendered(), envoy=changes)
    assert text in found
    assert findings(rendered(envoy=changes), envoy=changes) == []


def test_the_addresses_of_a_pool_are_those_of_the_settings():
    pools = [
        {"name": "short", "max_model_len": 8192, "address": "a:8000, b:8000"},
        {"name": "long", "max_model_len": 65536, "address": "[::1]:8000"},
    ]
    assert findings(rendered(pools=pools), pools=pools) == []
    short, long = findings(rendered(), pools=pools)
    assert short.endswith("short:8000 differs from pools.short.address: set a:8000, b:8000")
    assert long.endswith("endpoints: long:8000 differs from pools.long.address: set [::1]:8000")


def test_addresses_that_the_settings_do_not_state_are_those_of_the_file():
    pools = [{"name": "short", "max_model_len": 8192}, {"name": "long", "max_model_len": 65536}]
    document = rendered()
    [group] = cluster(document, "short")["load_assignment"]["endpoints"]
    group["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] = "elsewhere"
    assert findings(document, pools=pools) == []


def test_a_socket_is_known_by_its_path():
    listen = {"listen": {"grpc": "unix:/run/a.sock"}}
    assert findings(rendered(**listen), **listen) == []
    assert any("set /run/a.sock" in found for found in findings(rendered(), **listen))


def test_a_finding_says_where():
    document = rendered()
    router(document).pop("failure_mode_allow")
    at = "listeners[0].filter_chains[0].filters[0].typed_config.http_filters[2].typed_config"
    assert findings(document)[0].startswith(f"static_resources.{at}.failure_mode_allow: ")


NAMES = """
static_resources listeners clusters name @type http_filters typed_config route_config routes match
virtual_hosts route thresholds load_assignment endpoints lb_endpoints metadata
"""
KEYS = st.sampled_from([*NAMES.split(), 7, None])
SCALARS = st.sampled_from(
    ["x.HttpConnectionManager", "x.ExternalProcessor", "short", "dualpool", "1s", 0, -1, 1.5, None]
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)


@given(DOCUMENTS)
def test_no_document_is_too_odd(document):
    assert findings(document)


RENDERED = rendered()


def paths(node, path=()):
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in children:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*path, key))


@given(st.data())
def test_no_change_of_a_file_makes_it_too_odd(data):
    document = copy.deepcopy(RENDERED)
    *way, last = data.draw(st.sampled_from(list(paths(document))))
    node = document
    for key in way:
        node = node[key]
    node[last] = data.draw(DOCUMENTS)
    findings(document)


def test_a_document_that_contains_itself_has_an_end(tmp_path):
    file = tmp_path / "envoy.yaml"
    file.write_text("static_resources: &a\n  listeners: [*a]\n  clusters: *a\n")
    assert len(review(Settings(), read_envoy(file).document)) == 1


NO_YAML = r"envoy\.yaml(:\d+)?: (is not YAML|another document begins here)"


@pytest.mark.parametrize(
    "text", ["a: [", "\x00", "a: 1\n---\nb: 2\n", "[" * 5000, r'"\ud800": 1', r'a: "\ud800"']
)
def test_what_is_no_yaml_is_one_message(tmp_path, text):
    file = tmp_path / "envoy.yaml"
    file.write_text(text)
    with pytest.raises(EnvoyFileError, match=NO_YAML) as error:
        read_envoy(file)
    assert "\n" not in str(error.value)


def test_check_prints_findings_one_a_line_and_ends_with_1(tmp_path, capsys):
    file = tmp_path / "envoy.yaml"
    document = rendered()
    router(document).pop("failure_mode_allow")
    file.write_text(yaml.safe_dump(document))
    assert main(["check", "--envoy", str(file)]) == 1
    [line] = capsys.readouterr().out.splitlines()
    assert re.match(rf"{re.escape(str(file))}:\d+: static_resources\.", line)


def test_check_sorts_findings_by_line(tmp_path, capsys):
    file = tmp_path / "envoy.yaml"
    document = rendered()
    router(document).pop("failure_mode_allow")
    observer(document).pop("failure_mode_allow")
    host(document)["routes"][-1]["route"].pop("timeout")
    told(document).update(max_model_len=4096)
    file.write_text(yaml.safe_dump(document))
    main(["check", "--envoy", str(file)])
    numbers = [int(line.split(":")[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(numbers) >= 4
    assert numbers == sorted(numbers)


def test_check_says_that_they_agree(tmp_path, capsys):
    file = tmp_path / "envoy.yaml"
    main(["config", "envoy"])
    file.write_text(capsys.readouterr().out)
    assert main(["check", "--envoy", str(file)]) == 0
    assert capsys.readouterr().out == f"{file} and the settings agree\n"


def test_check_remarks_on_what_is_no_fault(tmp_path, capsys):
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(unwrapped(rendered())))
    assert main(["check", "--envoy", str(file)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{file} and the settings agree\n"
    assert f"note: {file}:" in told.err
    assert "llm.observer runs for every request" in told.err


def test_an_envoy_file_that_is_not_there_is_one_message(capsys):
    assert main(["check", "--envoy", "/nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "/nowhere.yaml: cannot be read: No such file or directory\n"


def test_a_header_that_names_tenants_reaches_the_service():
    document, tenants = rendered(), {"header": "authorization"}
    assert findings(rendered(tenants=tenants), tenants=tenants) == []
    [found] = findings(document, tenants=tenants)
    assert "the service does not get the header authorization: remove it" in found


def test_a_header_that_names_conversations_reaches_the_service():
    sticky = {"by": "header", "header": "x-api-key"}
    [found] = findings(rendered(), sticky=sticky)
    assert "the service does not get the header x-api-key: remove it" in found
    assert findings(rendered(), sticky=sticky | {"by": "user"}) == []
