"""The files that the settings name, as they are found here."""

from pathlib import Path

import pytest

from extproc.cli import main
from extproc.config.keys import dotted
from extproc.config.settings import (
    ListenSettings,
    LoadSettings,
    ModelSettings,
    PoolSettings,
    Settings,
    TenantSettings,
)
from extproc.service.certificates import CertificateFiles
from extproc.service.files import certificate_files, file_faults
from tests.support.certificate_authority import Authority

NONE = "/nowhere/file"


def found(settings):
    return {dotted(place): text for place, text in file_faults(settings)}


def test_without_a_certificate_there_are_no_files():
    assert certificate_files(ListenSettings()) is None


@pytest.mark.parametrize(("ca", "path"), [("", None), ("/ca", Path("/ca"))])
def test_the_files_are_those_of_the_settings(ca, path):
    listen = ListenSettings(tls_cert="/cert", tls_key="/key", tls_client_ca=ca)
    assert certificate_files(listen) == CertificateFiles(Path("/cert"), Path("/key"), path)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"listen": ListenSettings(http_token_file=NONE)}, "listen.http_token_file"),
        ({"tenants": TenantSettings(key_file=NONE)}, "tenants.key_file"),
        ({"state_password_file": NONE}, "state_password_file"),
        ({"state_ca_file": NONE}, "state_ca_file"),
        ({"models": (ModelSettings(name="m", tokenizer=NONE),)}, "models[0].tokenizer"),
    ],
)
def test_a_file_that_is_missing_is_told_with_its_place(settings, place):
    faults = found(Settings(**settings))
    assert [*faults] == [place]
    assert NONE in faults[place] or "does not exist" in faults[place]


def test_each_missing_file_of_a_certificate_is_told():
    listen = ListenSettings(tls_cert="/a/cert", tls_key="/a/key", tls_client_ca="/a/ca")
    faults = found(Settings(listen=listen))
    assert {place: text.split(":")[0] for place, text in faults.items()} == {
        "listen.tls_cert": "/a/cert",
        "listen.tls_key": "/a/key",
        "listen.tls_client_ca": "/a/ca",
    }


def test_a_key_of_another_certificate_is_told(tmp_path):
    one, other = map(Authority(tmp_path).issue, ("one", "other"))
    listen = ListenSettings(tls_cert=str(one.cert), tls_key=str(other.key))
    assert "not the key of" in found(Settings(listen=listen))["listen.tls_cert"]


def test_files_that_can_be_used_are_no_fault(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    tenants = TenantSettings(key_file=str(secret))
    assert found(Settings(tenants=tenants, state_password_file=str(secret))) == {}


@pytest.mark.parametrize(("spill", "places"), [(True, ["pools[0].tls_ca"]), (False, [])])
def test_the_authority_of_a_pool_is_read_where_the_service_asks_its_servers(spill, places):
    pools = (PoolSettings(name="one", max_model_len=8192, tls_ca=NONE),)
    assert [*found(Settings(pools=pools, load=LoadSettings(spill=spill)))] == places


@pytest.mark.parametrize(("flags", "code"), [([], 2), (["--no-files"], 0)])
def test_check_tells_them_unless_the_service_runs_elsewhere(tmp_path, capsys, flags, code):
    file = tmp_path / "dualpool.yaml"
    file.write_text("shadow: true\ntenants: {key_file: /nowhere/file}\n")
    assert main(["check", str(file), *flags]) == code
    told = capsys.readouterr().err
    assert (f"{file}:2: tenants.key_file: the file of the secret does not exist" in told) == (
        code == 2
    )
    assert ("--no-files" in told) == (code == 2)
