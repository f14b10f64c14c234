import json
import socket
import sys
from dataclasses import replace

import pytest

from extproc.config.errors import UserError
from extproc.doctor import looking, run
from extproc.doctor.finding import Ailment, Unchecked
from extproc.doctor.looking import Places
from extproc.doctor.run import DoctorOptions, run_doctor, written

CONCLUDED = (Unchecked("usage", "only 3 requests"), Ailment("service", "it is down", "start it"))
PLACES = Places(service="http://s:1", envoy="http://e:2")


def test_each_finding_is_one_line_with_its_fix():
    assert written(CONCLUDED, PLACES, as_json=False).splitlines() == [
        "service: it is down; start it",
        "usage: not checked: only 3 requests",
        "looked at Envoy (http://e:2) and the service (http://s:1): findings: 1",
    ]


def test_what_servers_call_themselves_cannot_forge_a_line():
    forged = Ailment("pools", "a\x1b[2K\r\nservice: b\x9b" + "c" * 10_000, "look")
    shown = written((forged,), PLACES, as_json=False).splitlines()
    assert len(shown) == 2
    assert shown[0].startswith("pools: a?[2K??service: b?c")
    assert len(shown[0]) < 5000


def test_what_was_not_checked_is_not_called_right():
    lines = written(CONCLUDED[:1], PLACES, as_json=False).splitlines()
    assert lines[-1].endswith(": nothing is wrong in what was checked")


def test_the_same_is_written_as_json():
    assert json.loads(written(CONCLUDED, PLACES, as_json=True)) == {
        "envoy": "http://e:2",
        "service": "http://s:1",
        "findings": [{"check": "service", "evidence": "it is down", "fix": "start it"}],
        "unchecked": [{"check": "usage", "reason": "only 3 requests"}],
    }


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("password", ["secret", "a'secret", 'a"secret'])
def test_no_password_of_an_address_is_shown(as_json, password):
    places = replace(PLACES, service=f"http://me:{password}@s:1")
    forged = Ailment("service", f"http://me:{password}@s:1/metrics: HTTP 401", "look")
    shown = written((forged,), places, as_json=as_json)
    assert "secret" not in shown
    assert shown.count("http://***@s:1") == 2


@pytest.mark.parametrize(
    "address", ["host", "host:", "host:0", "host:99999", "http://a/b:1", ":1", "[::1", "::1:9901"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match=r"--envoy: .* is not HOST:PORT"):
        run_doctor(DoctorOptions(envoy=address))


def test_nothing_that_answers_is_a_finding(capsys):
    assert run_doctor(DoctorOptions(envoy="127.0.0.1:1", service="http://127.0.0.1:1/")) == 1
    assert "connection refused" in capsys.readouterr().out


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_is_told_what_is_waited_for(monkeypatch, capsys, is_terminal):
    monkeypatch.setattr(run, "_QUIET_S", 0.1)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(looking, "_TIMEOUT_S", 0.4)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert run_doctor(DoctorOptions(service=address, envoy=address)) == 1
    told = "dualpool: asking the service, Envoy and the pools, up to 10 s for each answer ...\n"
    assert capsys.readouterr().err == told * is_terminal
