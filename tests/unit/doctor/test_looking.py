import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.values import Learnt
from extproc.config.settings import Settings
from extproc.doctor.facts import Unseen
from extproc.doctor.looking import (
    read_counts,
    read_discords,
    read_discovered,
    read_hosts,
    read_models,
    read_settings,
    read_used,
)
from extproc.envoy.document import Part
from extproc.routing.load.discovery import Discord
from extproc.service.build import describe_settings
from extproc.service.pages import write_state

PAGE = b"""\
# TYPE dualpool_decisions_total counter
dualpool_decisions_total{pool="short",category="a",reason="fits",basis="prior"} 2.0
dualpool_decisions_total{pool="short",category="b",reason="fits",basis="prior"} 3.0
dualpool_decisions_created{pool="short",category="b",reason="fits",basis="prior"} 9.0
process_open_fds 7.0
"""


def test_counters_are_added_up_over_the_labels_that_nobody_asks_for():
    assert read_counts(PAGE).values == {"dualpool_decisions_total short fits": 5.0}


@pytest.mark.parametrize("value", [b"-5", b"NaN", b"+Inf"])
def test_what_no_counter_can_have_is_left_out(value):
    assert read_counts(b"dualpool_answers_total " + value + b"\n").values == {}


def test_the_settings_are_those_that_the_service_states():
    settings = Settings(shadow=True, state="file:/s")
    assert read_settings(write_state(describe_settings(settings), Learnt({}))) == settings


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"{}", "older than this command"),
        (b'{"settings": {"pools": 3}}', "does not know"),
        (b'{"settings": 3}', "does not know"),
        (b'{"settings": {"pools": []}}', "does not know"),
    ],
)
def test_settings_that_cannot_be_read_are_not_used(page, reason):
    assert reason in read_settings(page).reason


def test_the_windows_that_count_are_read_where_the_service_asks_servers():
    assert read_used(read_discovered(b'{"discovered": {"short": {"used": 4096}, "long": 3}}')) == {
        "short": 4096
    }
    assert read_used(read_discovered(b"{}")) == {}


def test_names_in_which_servers_disagree_are_read_where_the_service_asks_them():
    page = b'{"discovered": {"short": {"missing": ["a", 3], "apart": 3}, "long": {}}}'
    assert read_discords(read_discovered(page)) == {
        "short": Discord(missing=("a",)),
        "long": Discord(),
    }
    assert read_discords(read_discovered(b'{"discovered": [3]}')) == {}


def test_the_windows_of_a_server_are_those_of_its_models():
    rows = b'{"data": [{"id": "a", "max_model_len": 8192}, {"id": "b"}, 3]}'
    assert read_models(rows) == {"a": 8192}


@pytest.mark.parametrize(("stated", "failures"), [({}, 0), ({"value": "3"}, 3)])
def test_envoy_leaves_out_a_count_of_0(stated, failures):
    host = {"stats": [{"name": "cx_connect_fail"} | stated]}
    [found] = read_hosts(Part("", {"cluster_statuses": [{"host_statuses": [host]}]}))
    assert found.unconnected == failures


def test_a_server_that_states_no_window_is_not_judged():
    assert isinstance(read_models(b'{"data": [{"id": "gpt"}]}'), Unseen)


@given(st.binary(max_size=200))
def test_whatever_answers_nothing_is_raised(data):
    read_counts(data)
    read_settings(data)
    read_used(read_discovered(data))
    read_models(data)
    read_counts(PAGE + data)
