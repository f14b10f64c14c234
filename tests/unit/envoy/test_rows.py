"""Envoy's configuration for several rows of pools."""

import subprocess

import pytest
import yaml

from extproc.config.settings import Settings
from extproc.envoy.document import Part
from extproc.envoy.envoy_gateway import render_envoy_gateway
from extproc.envoy.fragment import render_fragment
from extproc.envoy.inference_pools import render_inference_pools
from extproc.envoy.istio import render_istio
from extproc.envoy.render import RenderError, render_envoy
from extproc.envoy.review import review
from tests.support.envoys import FORMS, binary
from tests.support.paths import ROOT

ADAPTERS = [f"org/adapter-{n} é" for n in range(200)]


def row(name, *models, windows=(1000, 2000)):
    pools = [
        {"name": f"{name}{window}", "max_model_len": window}
        | {"address": f"{name}{window}.llm.svc.cluster.local:8000"}
        for window in windows
    ]
    return {"models": list(models), "pools": pools}


def settings(*last, envoy=None):
    rows = [row("a", "a", "b-*", windows=(1000, 2000, 3000)), row("c", *(last or ["c"]))]
    service = {"service": "dualpool.llm.svc.cluster.local"}
    return Settings.model_validate({"rows": rows, "envoy": service | (envoy or {})})


def document(given):
    return yaml.safe_load(render_envoy(given))


def routes(given):
    [listener] = document(given)["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    [host] = manager["route_config"]["virtual_hosts"]
    return {each["name"]: each for each in host["routes"]}


OBSERVED = {"form": "observed"}


@pytest.mark.parametrize(("version", "form"), FORMS)
def test_each_envoy_accepts_rows_in_each_form_that_it_has(version, form):
    given = settings(
        *ADAPTERS, 'a "quoted\\\\" name', "*-x", envoy={"version": version, "form": form}
    )
    command = [binary(version), "--mode", "validate", "--config-yaml", render_envoy(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_pool_falls_back_on_the_largest_of_its_row():
    clusters = {each["name"]: each for each in document(settings())["static_resources"]["clusters"]}
    assert {"a1000_then_a3000", "a3000_then_a2000", "c1000_then_c2000"} <= {*clusters}
    largest = {n for n, each in clusters.items() if "outlier_detection" in each}
    checked = {n for n in largest if "health_checks" in clusters[n]}
    assert largest - checked == {"a3000", "c2000"}


def test_each_row_has_routes_for_its_models_without_a_decision():
    found = routes(settings(envoy=OBSERVED))
    by_size, rest = found["c1000_by_size"], found["undecided_c2000"]
    for each in (by_size, rest):
        row_header = {"name": "x-llm-row", "string_match": {"exact": "c2000"}}
        assert row_header in each["match"]["headers"]
    assert rest["route"]["cluster"] == "c2000"


def test_what_states_no_model_goes_to_the_first_row_and_what_no_row_has_to_none():
    found = routes(settings(envoy=OBSERVED))
    assert [*found][-1] == "undecided"
    assert found["undecided"]["route"]["cluster"] == "a3000"
    assert found["unlisted"]["direct_response"]["status"] == 404


def test_a_last_row_of_every_model_has_what_no_other_names():
    found = routes(settings("c", "*", envoy=OBSERVED))
    assert found["undecided"]["route"]["cluster"] == "c2000"
    assert "undecided_c2000" not in found


def test_no_large_body_passes_unread_where_only_it_says_whose_it_is():
    assert "large" not in routes(settings())
    assert "large" in routes(Settings.model_validate({"rows": [row("a", "a")]}))


def test_pools_alone_are_read_by_no_further_filter():
    assert "x-llm-row" not in render_envoy(Settings())


@pytest.mark.parametrize("last", [(), ("c", "*")])
@pytest.mark.parametrize("form", ["trailers", "observed", "single"])
def test_our_own_file_agrees_with_its_settings(last, form):
    given = settings(*last, envoy={"form": form})
    assert review(given, Part("", document(given))) == ()


def test_a_row_without_its_pool_or_route_is_found():
    given = settings(envoy=OBSERVED)
    text = render_envoy(given).replace('exact: "c2000"', 'exact: "other"')
    found = [str(each) for each in review(given, Part("", yaml.safe_load(text)))]
    assert any("x-llm-pool: c2000" in each for each in found)
    moved = render_envoy(given).replace('cluster: "a3000"', 'cluster: "c2000"')
    found = [str(each) for each in review(given, Part("", yaml.safe_load(moved)))]
    assert any("requests without x-llm-pool go to 'c2000': set 'a3000'" in each for each in found)


def test_a_fragment_has_the_filter_that_reads_the_model():
    text = render_fragment(settings(envoy=OBSERVED), "/llm/")
    assert "name: llm.row" in text
    assert "llm_unlisted" in text


def of_kind(text, kind):
    return [each for each in yaml.safe_load_all(text) if each["kind"] == kind]


def test_istio_sends_what_its_own_routes_get_to_the_row_of_no_model():
    text = render_istio(settings(), "gate/way")
    [virtual] = of_kind(text, "VirtualService")
    names = [each["name"] for each in virtual["spec"]["http"]]
    assert names == [f"dualpool-{n}" for n in ("a1000", "a2000", "c1000", "c2000", "a3000")]
    assert "match" not in virtual["spec"]["http"][-1]
    shares = {
        each["metadata"]["name"]: each["spec"]["trafficPolicy"]["outlierDetection"]
        for each in of_kind(text, "DestinationRule")
    }
    half = {name for name, each in shares.items() if each["maxEjectionPercent"] == 50}
    assert half == {"dualpool-a3000", "dualpool-c2000"}


def test_istio_has_the_routes_of_all_rows():
    [filter_] = of_kind(render_istio(settings(), "gate/way"), "EnvoyFilter")
    patches = filter_["spec"]["configPatches"]
    names = {each["patch"]["value"].get("name") for each in patches}
    assert {"llm_websocket", "llm_undecided_c2000", "llm_unlisted", "llm.row"} <= names


def test_an_http_route_sends_the_models_of_a_row_to_its_largest_pool():
    [route] = of_kind(render_inference_pools(settings(), "gate/way"), "HTTPRoute")
    rules = {each["name"]: each for each in route["spec"]["rules"]}
    [match] = rules["dualpool-c2000.undecided"]["matches"]
    assert match["headers"] == [{"name": "x-llm-row", "value": "c2000"}]
    assert [*rules][-1] == "dualpool-a3000"


def test_an_http_route_has_no_more_rules_than_it_can():
    rows = [row(name, name, windows=(1000, 2000, 3000)) for name in "abcde"]
    given = settings().model_dump() | {"rows": rows, "pools": ()}
    given.pop("pools")
    with pytest.raises(RenderError, match=r"^rows: 20 rules for pools and rows"):
        render_inference_pools(Settings.model_validate(given), "gate/way")


def test_envoy_gateway_takes_one_row():
    with pytest.raises(RenderError, match=r"^rows: Envoy Gateway cannot route by the model"):
        render_envoy_gateway(settings(), "gate/way")


def test_a_fault_of_a_pool_names_its_row():
    given = settings().model_dump()
    given.pop("pools")
    given["rows"][1]["pools"][0]["address"] = "c:8000"
    with pytest.raises(RenderError, match=r"rows\[1\]\.pools\[0\]\.address: c:8000 names no"):
        render_istio(Settings.model_validate(given), "gate/way")


def test_the_image_and_the_wheel_have_the_filter():
    assert "!envoy/find_row.lua" in (ROOT / ".dockerignore").read_text()
    assert '"envoy/find_row.lua"' in (ROOT / "pyproject.toml").read_text()
