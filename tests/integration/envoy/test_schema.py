"""Our reading of Envoy files beside Envoy's own, and beside protobuf's."""

import contextlib
import importlib
import importlib.metadata
import pkgutil

import envoy_data_plane
import pytest
import yaml
from envoy_data_plane.message_pool import default_message_pool
from google.protobuf import descriptor_pool, json_format, symbol_database

from extproc.config.settings import Settings
from extproc.envoy.api_types import api_fields, full_name
from extproc.envoy.document import Part
from extproc.envoy.render import render_envoy
from extproc.envoy.schema import check_schema
from tests.support.envoys import FORMS
from tests.support.manifests import refusal

RAW = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"


ONLY_THEIRS = {
    "envoy.extensions.filters.http.mcp.v3.ParserConfig.MethodConfig.extraction_rules",
    "envoy.service.ext_proc.v3.ProcessingResponse.request_drain",
    "google.protobuf.FeatureSet.enforce_proto_limits",
    # Of the newer opentelemetry-proto, see .ci/mend-protos.
    "opentelemetry.proto.common.v1.AnyValue.string_value_strindex",
    "opentelemetry.proto.common.v1.KeyValue.key_strindex",
}


@pytest.fixture(scope="module")
def protos():
    """Load all messages of xds-protos; return its symbol database."""
    for file in importlib.metadata.files("xds-protos"):
        # One module wants a package that xds-protos does not ask for.
        if file.name.endswith("_pb2.py") and "grpc_field_extraction" not in str(file):
            try:
                importlib.import_module(".".join(file.with_suffix("").parts))
            except (ImportError, TypeError):
                continue
    return symbol_database.Default()


@pytest.fixture(scope="module")
def api():
    """Load all messages of envoy-data-plane; return their classes."""
    for module in pkgutil.walk_packages(envoy_data_plane.__path__, "envoy_data_plane."):
        importlib.import_module(module.name)
    return list(default_message_pool.type_to_url)


@pytest.mark.parametrize(("version", "form"), FORMS)
def test_a_file_is_read_as_protobuf_reads_it(version, form, protos):
    text = render_envoy(Settings.model_validate({"envoy": {"version": version, "form": form}}))
    document = yaml.safe_load(text)
    report = check_schema(Part("", document))
    if report.unchecked:
        pytest.skip("xds-protos does not have all of Envoy 1.40 either")
    bootstrap = protos.pool.FindMessageTypeByName("envoy.config.bootstrap.v3.Bootstrap")
    ours = bootstrap._concrete_class.FromString(bytes(report.message))
    theirs = json_format.ParseDict(document, bootstrap._concrete_class())
    # As dictionaries: within an Any, the order of fields is the writer's.
    assert json_format.MessageToDict(ours) == json_format.MessageToDict(theirs)


def test_every_field_has_the_names_of_the_api(protos, api):
    theirs = [
        (kind, field)
        for kind in api
        if (found := protos_message(full_name(kind))) is not None
        for field in found.fields
    ]
    assert len(theirs) > 5000
    for kind, field in theirs:
        ours = api_fields(kind)
        assert ours.get(field.name) is ours.get(field.json_name), field.full_name
    assert {f.full_name for kind, f in theirs if f.name not in api_fields(kind)} <= ONLY_THEIRS


def protos_message(name):
    with contextlib.suppress(KeyError):
        return descriptor_pool.Default().FindMessageTypeByName(name)


# Fields of a cluster, each of which Envoy takes or refuses.
FIELDS = (
    "type: 0",
    "type: static",
    "type: STATIK",
    "type: 99",
    "name: 123",
    "name: 2025-01-31",
    'respect_dns_ttl: "true"',
    "respect_dns_ttl: 1",
    "respect_dns_ttl: yes",
    'per_connection_buffer_limit_bytes: "10"',
    "per_connection_buffer_limit_bytes: {value: 10}",
    "per_connection_buffer_limit_bytes: 10.0",
    "per_connection_buffer_limit_bytes: 10.5",
    "per_connection_buffer_limit_bytes: -1",
    "per_connection_buffer_limit_bytes: true",
    "per_connection_buffer_limit_bytes: null",
    "perConnectionBufferLimitBytes: 10",
    "per-connection-buffer-limit-bytes: 10",
    "PerConnectionBufferLimitBytes: 10",
    "dns_resolvers: {pipe: {path: a}}",
    "dns_resolvers: [null]",
    "connect_timeout: 1",
    "connect_timeout: 1.5s",
    "connect_timeout: 1500ms",
    "connect_timeout: {seconds: 1}",
    "connect_timeout: {second: 1}",
    "common_lb_config: {healthy_panic_threshold: {value: half}}",
    "common_lb_config: {healthy_panic_threshold: {value: '50'}}",
    "common_lb_config: {healthy_panic_threshold: 50}",
    "common_lb_config: {zone_aware_lb_config: {}, locality_weighted_lb_config: {}}",
    "metadata: {filter_metadata: {a: 1}}",
    "metadata: {filter_metadata: {1: {b: [null, 1.5, {}]}}}",
    "metadata: {filter_metadata: {a: {1: 2, b: 2025-01-31, c: 1.0e+308}}}",
    "metadata: []",
    "frobnicate: 1",
    "transport_socket: {name: a, typed_config: {}}",
    f'transport_socket: {{name: a, typed_config: {{"@type": {RAW}}}}}',
    f'transport_socket: {{name: a, typed_config: {{"@type": a/{RAW}}}}}',
    f'transport_socket: {{name: a, typed_config: {{"@type": a/{RAW}s}}}}',
    f'transport_socket: {{name: a, typed_config: {{"@type": a/{RAW}, a: 1}}}}',
    'transport_socket: {name: a, typed_config: {"@type": a/envoy.config.core.v3.Node}}',
    f'transport_socket: {{name: a, typed_config: {{"@type": a/xds.type.v3.TypedStruct, '
    f"type_url: a/{RAW}, value: {{}}}}}}",
)


@pytest.mark.parametrize("field", FIELDS)
def test_what_envoy_refuses_is_a_fault_and_nothing_else(field):
    cluster = {"name": "a", "connect_timeout": "1s", **yaml.safe_load(field)}
    document = {"static_resources": {"clusters": [cluster]}}
    faults = check_schema(Part("", document)).faults
    assert bool(faults) == bool(refusal(document)), faults
