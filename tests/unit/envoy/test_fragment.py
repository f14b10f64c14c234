"""The parts that join this service to an operator's Envoy."""

import pytest
import yaml

from extproc.cli import main
from extproc.config.settings import Settings
from extproc.envoy.document import Part
from extproc.envoy.fragment import FragmentError, render_fragment
from extproc.envoy.review import review
from tests.support.envoys import FORMS
from tests.support.joined_envoy import BEFORE, join


def fragment(prefix="/llm/", **settings):
    return yaml.safe_load(render_fragment(Settings.model_validate(settings), prefix))


def match_paths(parts):
    keys = ("prefix", "path", "safe_regex")
    return [
        each["match"].get(key) for each in parts["routes"] for key in keys if key in each["match"]
    ]


def joined_findings(version, form):
    settings = Settings.model_validate({"envoy": {"version": version, "form": form}})
    text = join(BEFORE.read_text(), render_fragment(settings, "/llm/"))
    return [str(each) for each in review(settings, Part("", yaml.safe_load(text)))]


@pytest.mark.parametrize(("version", "form"), [each for each in FORMS if each[0] != "1.36"])
def test_a_file_with_the_parts_agrees_with_the_settings(version, form):
    assert joined_findings(version, form) == []


def test_envoy_1_36_also_needs_the_limit_of_the_listener():
    [finding] = joined_findings("1.36", "observed")
    path = "static_resources.listeners[0].per_connection_buffer_limit_bytes"
    assert finding == f"{path}: a body above 1048576 bytes gets 413: set 33554432"


def test_every_filter_is_off_and_every_route_enables_it():
    parts = fragment()
    names = [each["name"] for each in parts["http_filters"]]
    assert all(each["disabled"] is True for each in parts["http_filters"])
    assert "envoy.filters.http.router" not in names
    forwarding = [each for each in parts["routes"] if "route" in each]
    assert all(list(each["typed_per_filter_config"]) == names for each in forwarding)


def test_only_headers_of_the_service_are_removed_for_all():
    [extension] = fragment()["early_header_mutation_extensions"]
    [mutation] = extension["typed_config"]["mutations"]
    regex = mutation["remove_on_match"]["key_matcher"]["safe_regex"]["regex"]
    assert regex == "(?i)x[-_]llm[-_].*"


def test_a_large_body_is_held_no_more_than_a_connection_holds():
    [large] = [each for each in fragment()["routes"] if each["name"] == "llm_large"]
    assert large["request_body_buffer_limit"] == Settings().envoy.buffer_bytes


def test_routes_are_below_the_prefix_and_pools_see_the_rest():
    parts = fragment("/a/b/")
    paths = [path["regex"] if isinstance(path, dict) else path for path in match_paths(parts)]
    assert all(path.startswith("/a/b") for path in paths)
    rewrites = [each["route"]["regex_rewrite"] for each in parts["routes"] if "route" in each]
    assert all(each == {"pattern": {"regex": "^/a/b/"}, "substitution": "/"} for each in rewrites)


def test_without_a_prefix_paths_stay():
    routes = [each["route"] for each in fragment("/")["routes"] if "route" in each]
    assert not [each for each in routes if "regex_rewrite" in each]


@pytest.mark.parametrize("prefix", ["", "llm", "/llm", "//", "/a b/", "/a*/", "/é/"])
def test_a_prefix_that_is_no_path_is_refused(prefix):
    with pytest.raises(FragmentError, match=r"--prefix: .* a path that starts and ends with /"):
        render_fragment(Settings(), prefix)


@pytest.mark.parametrize(("prefix", "right"), [("/v1/", "'/'"), ("/llm/v1/", "'/llm/'")])
def test_the_prefix_does_not_include_the_path_of_the_api(prefix, right):
    with pytest.raises(FragmentError, match=f"stands before the API's own /v1/, {right} for"):
        render_fragment(Settings(), prefix)


def test_limits_and_headers_are_on_the_routes():
    for route in fragment()["routes"]:
        if "route" in route:
            assert route["request_body_buffer_limit"]
            assert route["response_headers_to_add"]
            assert route["route"]["idle_timeout"]


def test_the_admin_interface_of_the_operator_is_left_alone():
    settings = {"metrics": "0.0.0.0:9902"}
    assert "admin" not in [each["name"] for each in fragment(envoy=settings)["clusters"]]


def test_what_envoy_1_36_needs_besides_is_said():
    text = render_fragment(Settings.model_validate({"envoy": {"version": "1.36"}}), "/llm/")
    assert "# Envoy 1.36 ignores request_body_buffer_limit here." in text


def test_the_command_prints_the_parts(capsys):
    assert main(["config", "envoy", "--fragment", "--prefix", "/ai/"]) == 0
    assert "https://your-host/ai/v1" in capsys.readouterr().out


def test_the_command_refuses_a_prefix(capsys):
    assert main(["config", "envoy", "--fragment", "--prefix", "ai"]) == 2
    assert capsys.readouterr().err.startswith("--prefix: 'ai' is not allowed: ")


def test_a_prefix_without_the_parts_is_refused(capsys):
    assert main(["config", "envoy", "--prefix", "/ai/"]) == 2
    assert capsys.readouterr().err.startswith("--prefix: it needs --fragment")
