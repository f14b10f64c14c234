"""Envoy's own tracing in its configuration."""

import yaml

from extproc.config.settings import Settings, TracingSettings
from extproc.envoy.fragment import render_fragment
from extproc.envoy.render import render_envoy

TRACED = Settings(tracing=TracingSettings(otlp="http://collector:4318", share=0.01))


def resources(settings):
    return yaml.safe_load(render_envoy(settings))["static_resources"]


def manager(settings):
    [listener] = resources(settings)["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def test_envoy_traces_the_same_share_to_the_same_receiver():
    tracing = manager(TRACED)["tracing"]
    assert tracing["random_sampling"] == {"value": 1.0}
    uri = tracing["provider"]["typed_config"]["http_service"]["http_uri"]
    assert uri == {"uri": "http://collector:4318/v1/traces", "cluster": "otlp", "timeout": "1s"}
    [cluster] = [each for each in resources(TRACED)["clusters"] if each["name"] == "otlp"]
    assert cluster["type"] == "STRICT_DNS"


def test_envoy_does_not_trace_by_default():
    assert "tracing" not in manager(Settings())
    assert "otlp" not in {each["name"] for each in resources(Settings())["clusters"]}


def test_the_parts_for_an_envoy_of_ones_own_have_no_receiver():
    assert "otlp" not in render_fragment(TRACED, "/llm/")
