import pytest

from extproc.config.settings import LoadSettings, Settings
from extproc.doctor.facts import EnvoyFacts, Facts, ServiceFacts, Unseen
from extproc.doctor.finding import Unchecked
from extproc.doctor.traffic_checks import traffic_checks
from extproc.envoy.document import Part
from extproc.page.counts import Counts

ROUTER = {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
    "stat_prefix": "router",
    "grpc_service": {"envoy_grpc": {"cluster_name": "dualpool"}},
}
HEALTHY = {
    "dualpool_decisions_total short fits": 1000.0,
    "dualpool_answers_total learnt": 1000.0,
    "dualpool_verdicts_total short right": 1000.0,
    "dualpool_workers": 2.0,
    "dualpool_workers_ready": 2.0,
}


NOT_SEEN = Unseen("not looked at")


def found(counts, envoy=NOT_SEEN):
    service = ServiceFacts(ready=True, counts=Counts(HEALTHY | counts))
    return {each.check: str(each) for each in traffic_checks(Facts(Settings(), service, envoy))}


def envoy(**counters):
    named = {f"http.llm.ext_proc.router.{name}": value for name, value in counters.items()}
    return EnvoyFacts(Part("", {"filters": [ROUTER]}), (), named, ())


@pytest.mark.parametrize(
    ("state", "spill", "missed"),
    [("silent", True, True), ("silent", False, False), ("reporting", True, False)],
)
def test_a_pool_that_reports_no_load_is_found_with_spill(state, spill, missed):
    counts = {f"dualpool_pool_servers {pool} {state}": 1.0 for pool in ("short", "long")}
    service = ServiceFacts(ready=True, counts=Counts(HEALTHY | counts))
    settings = Settings(load=LoadSettings(spill=spill))
    checks = [str(each) for each in traffic_checks(Facts(settings, service, NOT_SEEN))]
    assert [f"no server of {pool} reports" in "".join(checks) for pool in ("short", "long")] == [
        missed,
        missed,
    ]


def test_healthy_counters_are_no_finding():
    assert found({}) == {}


@pytest.mark.parametrize(
    ("counts", "check", "evidence"),
    [
        ({"dualpool_answers_total learnt": 0.0}, "usage", "has seen no answer"),
        ({"dualpool_answers_total absent": 1500.0}, "learning", "60% of 2500 answers"),
        ({"dualpool_misroutes_total short clamped": 9.0}, "misroutes", "9 of 1000 answers"),
        ({"dualpool_retries_total short failed": 11.0}, "retries", "1.1% of 1000 answers"),
        ({"dualpool_decisions_total short busy": 100.0}, "lateness", "9% of 1100 requests"),
        ({"dualpool_streams_total fault": 1.0}, "streams", "1 streams ended with outcome fault"),
        ({"dualpool_workers_ready": 1.0}, "workers", "1 workers are missing"),
    ],
)
def test_a_fault_is_found_with_its_evidence(counts, check, evidence):
    conclusions = found(counts)
    assert [*conclusions] == [check]
    assert evidence in conclusions[check]


def test_the_misroutes_that_the_target_permits_are_no_finding():
    assert found({"dualpool_misroutes_total short clamped": 3.0}) == {}


@pytest.mark.parametrize(("silent", "checks"), [(64.0, []), (85.0, ["learning"])])
def test_the_streams_before_the_service_asks_for_usage_are_no_finding(silent, checks):
    counts = {
        "dualpool_decisions_total short fits": 200.0,
        "dualpool_answers_total learnt": 15.0,
        "dualpool_answers_total incomplete": silent,
    }
    assert [*found(counts)] == checks


def test_few_requests_are_not_judged():
    service = ServiceFacts(ready=True, counts=Counts({}))
    conclusions = traffic_checks(Facts(Settings(), service, Unseen("")))
    assert [*conclusions] == [Unchecked("usage", "only 0 requests since the start")]


def test_the_share_that_envoy_routes_alone_is_found():
    text = found({}, envoy(failure_mode_allowed=90.0, streams_started=100.0, message_timeouts=9.0))
    assert "90% of 100 requests since the start by their size" in text["fail open"]
    assert "(9 because it was late); late: raise workers" in text["fail open"]


def test_lateness_is_not_advised_on_where_no_request_was_late():
    text = found({}, envoy(failure_mode_allowed=90.0, streams_started=100.0))
    assert "(0 because it was late); see `reach`" in text["fail open"]


def test_bodies_in_chunks_that_the_service_refuses_are_not_its_absence():
    refused = {"dualpool_streams_total left_chunked": 90.0}
    assert found(refused, envoy(failure_mode_allowed=90.0, streams_started=100.0)) == {}


def test_an_envoy_that_counts_nothing_is_not_judged():
    assert found({}, envoy())["fail open"].startswith("fail open: not checked")


def state_findings(**figures):
    name, outcomes = "dualpool_state_snapshots_total", ("saved", "failed", "too_large")
    counted = {f"{name} {outcome}": figures.get(outcome, 0.0) for outcome in outcomes}
    counts = Counts({**counted, "dualpool_state_failing": figures["failing"]})
    facts = Facts(Settings(state="file:/keep/state"), ServiceFacts(True, counts), Unseen(""))
    return [str(each) for each in traffic_checks(facts) if str(each).startswith("state: ")]


@pytest.mark.parametrize("saved", [0.0, 1.0])
def test_a_state_that_cannot_be_saved_now_is_found(saved):
    assert state_findings(saved=saved, failed=3.0, failing=1.0) == [
        "state: what was learnt is lost with a restart: the last snapshot was not saved to "
        f"/keep/state (since the start {saved:.0f} saved, 3 failed, 0 too large); let the service "
        "write to the folder /keep, which must exist; if it is too large, read docs/runbooks.md, "
        "DualpoolStateNotSaved; the reason is in its log"
    ]


def test_a_state_that_is_too_large_is_found():
    [told] = state_findings(saved=3.0, too_large=2.0, failing=1.0)
    assert "(since the start 3 saved, 0 failed, 2 too large)" in told


def test_a_state_that_is_saved_again_is_not_found():
    assert state_findings(saved=1.0, failed=3.0, failing=0.0) == []
