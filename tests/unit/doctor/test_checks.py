import pytest

from extproc.config.settings import ListenSettings, PoolSettings, Settings
from extproc.doctor.checks import conclude
from extproc.doctor.facts import (
    Certificate,
    EnvoyFacts,
    Facts,
    Host,
    Served,
    ServiceFacts,
    Unseen,
)
from extproc.doctor.finding import Ailment
from extproc.envoy.document import Part
from extproc.page.counts import Counts
from extproc.routing.load.discovery import Discord

SHORT = PoolSettings(name="short", max_model_len=8192)


def service(*, ready=True, used=None, discords=None):
    return ServiceFacts(ready, Counts({}), used or {}, discords or {})


def envoy(bootstrap=None, hosts=(), certificates=()):
    # What a control plane delivers is not reviewed.
    return EnvoyFacts(Part("", bootstrap or {"dynamic_resources": {}}), hosts, {}, certificates)


def found(told, seen, served=(), certificate=None):
    facts = Facts(Settings(), told, seen, served, certificate)
    return [str(each) for each in conclude(facts) if isinstance(each, Ailment)]


def test_a_healthy_installation_has_no_finding():
    assert found(service(), envoy(), (Served(SHORT, "h:1", {"m": 8192}),)) == []


def test_a_service_that_is_not_ready_is_found():
    [text] = found(service(ready=False), envoy())
    assert "does not accept streams" in text


def test_other_settings_than_those_of_the_file_are_found():
    facts = Facts(Settings(), service(), envoy(), file=Settings(shadow=True))
    [text] = [str(each) for each in conclude(facts) if isinstance(each, Ailment)]
    assert "does not run with the file (file -> service): shadow: true -> false; load" in text


def test_without_an_envoy_no_server_is_missed():
    facts = Facts(Settings(), service(), Unseen("connection refused"))
    [only] = conclude(facts)[:-1]
    assert str(only).startswith("envoy: connection refused")


def test_what_flags_may_set_is_no_other_setting():
    file = Settings(listen=ListenSettings(http="127.0.0.1:1"))
    facts = Facts(Settings(), service(), envoy(), file=file)
    assert [each for each in conclude(facts) if isinstance(each, Ailment)] == []


@pytest.mark.parametrize("answer", [service(), Unseen("no answer in time")])
@pytest.mark.parametrize(
    ("file", "instead"),
    [(None, "the defaults, as there is no --config"), (Settings(), "--config")],
)
def test_it_is_said_what_stands_for_settings_that_the_service_does_not_state(file, instead, answer):
    facts = Facts(Settings(), answer, envoy(), unstated="HTTP 401", file=file)
    assert f"settings: not checked: HTTP 401; all is compared with {instead}" in map(
        str, conclude(facts)
    )


def test_a_server_of_another_window_is_found_with_both_fixes():
    [text] = found(service(), envoy(), (Served(SHORT, "h:1", {"m": 4096}),))
    assert text == (
        "windows: h:1 of short serves m with 4096 tokens, the settings say 8192; set max_model_len "
        "of short to 4096, or start the server with --max-model-len 8192"
    )


@pytest.mark.parametrize(("shadow", "missed"), [(True, []), (False, ["short"])])
def test_a_smaller_pool_of_a_shadow_is_not_missed(shadow, missed):
    long = PoolSettings(name="long", max_model_len=65536)
    served = (Served(long, "h:1", {"m": 65536}),)
    facts = Facts(Settings(shadow=shadow), service(), envoy(), served, None)
    lines = [str(each) for each in conclude(facts)]
    expected = [f"windows: not checked: Envoy states no server of pool {name}" for name in missed]
    assert [line for line in lines if "states no server" in line] == expected


def test_a_window_that_a_server_told_the_service_alone_is_found():
    told = service(used={"short": 4096, "long": 65536})
    [text] = found(told, envoy())
    assert text == (
        "windows: the service takes short to hold 4096 tokens, as one of its servers states, the "
        "settings say 8192; set max_model_len of short to 4096, or start its servers with "
        "--max-model-len 8192"
    )
    [text] = found(told, envoy(), (Served(SHORT, "h:1", {"m": 4096}),))
    assert "h:1 of short serves m" in text


@pytest.mark.parametrize(
    ("discord", "said"),
    [
        (Discord(missing=("a",)), 'not all of its servers have what its row lists: "a"'),
        (Discord(unlisted=("a\n",)), r'its servers have what its row does not list: "a\n"'),
        (Discord(apart=("a", "b")), 'only some of its servers have: "a", "b"'),
    ],
)
def test_names_that_servers_lack_or_have_besides_are_found(discord, said):
    [text] = found(service(discords={"short": discord, "long": Discord()}), envoy())
    assert text.startswith(f"models: short: {said}; ")


def test_a_server_that_cannot_be_asked_is_no_finding():
    assert found(service(), envoy(), (Served(SHORT, "h:1", Unseen("refused")),)) == []


def test_a_server_that_refuses_envoy_too_is_found():
    refused = Unseen("http://h:1/v1/models: connection refused", refused=True)
    assert found(service(), envoy(), (Served(SHORT, "h:1", refused),)) == []
    [text] = found(service(), envoy(), (Served(SHORT, "h:1", refused, 3.0),))
    assert text.startswith("pools: h:1 of short refuses connections, Envoy's too: 3 of them")


def test_a_store_that_is_away_is_found():
    told = ServiceFacts(True, Counts({"dualpool_state_connected": 0.0}))
    [text] = found(told, envoy())
    assert text.startswith("store: the service does not share what it learns")


def test_a_server_that_hangs_is_found():
    hung = Unseen("http://h:1/v1/models: no answer in time", hangs=True)
    [text] = found(service(), envoy(), (Served(SHORT, "h:1", hung),))
    assert text.startswith("pools: h:1 of short accepts connections, and Envoy uses it, but http")


def test_an_envoy_without_the_filters_is_found():
    [text] = found(service(), envoy({"static_resources": {}}))
    assert text.startswith("filters: no ext_proc filter calls the service")


def test_a_service_that_envoy_knows_no_server_of_is_found():
    call = {"envoy_grpc": {"cluster_name": "dualpool"}}
    kind = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
    part = {"dynamic_resources": {}, "filters": [{"@type": kind, "grpc_service": call}]}
    [text] = found(service(), envoy(part))
    assert text.startswith("reach: Envoy knows no server of its cluster dualpool")
    assert found(service(), envoy(part, (Host("dualpool", "h:1", ()),))) == []


@pytest.mark.parametrize(
    ("days", "said"), [(13.6, "expires in 14 days"), (-1, "has expired"), (15, "")]
)
def test_a_certificate_that_expires_within_two_weeks_is_found(days, said):
    one = Certificate("Envoy's ca.pem", days)
    texts = found(service(), envoy(certificates=(one,)))
    assert bool(texts) == bool(said)
    assert all(said in text for text in texts)
    assert found(service(), envoy(), certificate=one) == texts
