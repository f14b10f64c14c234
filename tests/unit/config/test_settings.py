"""Values that can be set, apart from any file."""

import re
from dataclasses import FrozenInstanceError

import pytest

from extproc.config.addresses import host_port, worker_addresses
from extproc.config.keys import InvalidSectionError, Section, Why, dotted
from extproc.config.settings import (
    DROPPED,
    SECTIONS,
    EstimatorName,
    FailOpen,
    Form,
    LogLevel,
    ModelSettings,
    PoolSettings,
    Settings,
    StatedLimits,
    StickyBy,
    StoredResponses,
)
from extproc.request.prompt import Optional
from tests.support.paths import ROOT

PLAIN = {"tls_ca": "", "tls_name": ""}
DEFAULTS = {
    "listen": {
        "grpc": "127.0.0.1:50051",
        "transport": "auto",
        "http": "127.0.0.1:8081",
        "http_token_file": "",
        "max_message_bytes": 67108864,
        "notice_s": 3,
        "drain_s": 30,
        "body_timeout_s": 300,
        "max_streams": 12_000,
        "busy_share": 0.5,
        "tls_cert": "",
        "tls_key": "",
        "tls_client_ca": "",
    },
    "workers": 1,
    "rows": (),
    "pools": (
        {"name": "short", "max_model_len": 8192, "threshold": 8192, "address": "short:8000"}
        | PLAIN,
        {"name": "long", "max_model_len": 65536, "threshold": 65536, "address": "long:8000"}
        | PLAIN,
    ),
    "models": (),
    "budget": {
        "estimator": EstimatorName.CALIBRATED,
        "target": 0.001,
        "stated_limits": StatedLimits.RESERVE,
        "prefixes": 0,
        "count_bytes": 16_384,
        "beta": 0.95,
        "gamma": 1.0,
        "prior_bytes_per_token": 4.0,
        "default_output_tokens": 1024,
    },
    "categories": {"header": "", "max": 64, "models": 256},
    "tenants": {"header": "", "max": 128, "key_file": ""},
    "requests": {
        "max_body_bytes": 33554432,
        "observe_sample": 0.05,
        "ask_usage": True,
        "stored_responses": StoredResponses.ANY,
    },
    "load": {
        "discover": False,
        "spill": False,
        "wait_ms": 500,
        "every_ms": 250,
        "timeout_ms": 1000,
    },
    "sticky": {"by": StickyBy.NONE, "header": "x-session-id", "max": 65_536},
    "envoy": {
        "version": "1.40",
        "form": Form.AUTO,
        "listen": "0.0.0.0:10000",
        "admin": "127.0.0.1:9901",
        "metrics": "",
        "service": "127.0.0.1",
        "message_timeout_ms": 1000,
        "fail_open": FailOpen.BY_SIZE,
        "fail_open_bytes_per_token": 2.5,
        "large_body_bytes": 4194304,
        "max_headers": 256,
        "max_header_kib": 96,
        "max_streams": 100,
        "stream_window_bytes": 65536,
        "connection_window_bytes": 1048576,
        "buffer_bytes": 32768,
        "max_connections": 20000,
        "max_pool_requests": 10000,
        "max_heap_mib": 900,
        "request_headers_timeout_s": 10,
        "request_timeout_s": 300,
        "stream_idle_timeout_s": 3600,
        "connection_idle_timeout_s": 3600,
        "connect_timeout_ms": 1000,
        "pool_idle_timeout_s": 3,
        "pool_silence_s": 60,
        "pool_health": "connect",
        "tls_ca": "",
        "tls_cert": "",
        "tls_key": "",
    },
    "shadow": False,
    "tracing": {"otlp": "", "share": 0.01, "usage": False},
    "state": "",
    "state_password_file": "",
    "state_ca_file": "",
    "log_level": LogLevel.INFO,
}


def test_the_defaults_are():
    assert Settings().model_dump() == DEFAULTS


def test_the_defaults_keep_their_own_limits():
    assert Settings.model_validate(DEFAULTS) == Settings()


@pytest.mark.parametrize("section", [Settings, *SECTIONS.values()])
def test_every_key_is_described(section):
    assert all(field.description for field in section.model_fields.values())


def test_what_a_template_may_drop_is_what_is_read_apart():
    assert {kind.value for kind in Optional} == set(DROPPED)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [("", ()), ("schema", ("schema",)), ("schema, documents", ("schema", "documents"))],
)
def test_what_a_template_drops_is_a_list_with_commas(text, kinds):
    assert ModelSettings(name="m", drops=text).dropped == kinds


def test_every_section_is_known_by_its_key():
    sections = {key for key, value in Settings() if isinstance(value, Section)}
    assert sections | {"models", "pools", "rows"} == set(SECTIONS)


def test_a_setting_does_not_change():
    with pytest.raises(FrozenInstanceError):
        Settings().workers = 2


def test_values_that_are_wrong_are_all_named():
    values = {"workers": True, "budget": {"gamma": 11, "alpha": 1}, "pools": [{"name": "a"}, 7]}
    with pytest.raises(InvalidSectionError) as raised:
        Settings.model_validate(values)
    assert {(dotted(each.place), each.why) for each in raised.value.wrong} == {
        ("workers", Why.NOT_ALLOWED),
        ("budget.gamma", Why.NOT_ALLOWED),
        ("budget.alpha", Why.UNKNOWN),
        ("pools[0].max_model_len", Why.MISSING),
        ("pools[1]", Why.NO_MAPPING),
    }


def test_a_copy_knows_which_keys_were_stated():
    pool = PoolSettings(name="a", max_model_len=1).model_copy(update={"address": "b:1"})
    assert pool.stated == {"name", "max_model_len", "address"}


def test_settings_survive_json():
    assert Settings.model_validate_json(Settings().model_dump_json()) == Settings()


def test_a_threshold_is_the_window_unless_it_is_set():
    assert PoolSettings(name="short", max_model_len=4096).threshold == 4096


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("envoy:08", ("envoy", 8))],
)
def test_an_address_is_a_host_and_a_port(address, parts):
    assert host_port(address) == parts


def test_one_worker_has_the_address_itself():
    assert worker_addresses("unix:/run/grpc.sock", 1) == ("unix:/run/grpc.sock",)


def test_workers_have_consecutive_ports():
    assert worker_addresses("[::1]:50051", 3) == ("[::1]:50051", "[::1]:50052", "[::1]:50053")


def test_workers_have_numbered_sockets():
    assert worker_addresses("unix:/run/s", 2) == ("unix:/run/s.0", "unix:/run/s.1")


def test_workers_on_port_0_each_find_their_own():
    assert worker_addresses("127.0.0.1:0", 2) == ("127.0.0.1:0", "127.0.0.1:0")


LIMITS = ROOT / "docs" / "envoy-limits.md"
# Where and what Envoy is, and how it calls the service: not limits.
PLACES = {"version", "form", "listen", "admin", "metrics", "service", "message_timeout_ms"}


def test_each_limit_of_envoy_has_a_documented_reason():
    documented = set(re.findall(r"^\| `(\w+)` \|", LIMITS.read_text("utf-8"), re.MULTILINE))
    limits = Settings().envoy.model_dump().keys() - PLACES
    assert documented == {name for name in limits if not name.startswith("tls_")}
