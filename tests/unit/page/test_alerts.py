"""The alerts that the page derives, held to deploy/prometheus/alerts.yml."""

import pytest
import yaml

from extproc.page.alerts import ALERTS, Seen
from extproc.page.counts import Counts
from tests.support.paths import ROOT

RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
# What the conditions in extproc/page/alerts.py compute. If one of these differs, change both.
EXPRESSIONS = {
    "DualpoolMisroutesOverTarget": "pool:dualpool_misroutes:increase1h > on () group_left () "
    "(dualpool:answers_judged:increase1h * dualpool:misroute_target:max "
    "+ 3 * sqrt(dualpool:answers_judged:increase1h * dualpool:misroute_target:max)) "
    "and on () dualpool:answers_judged:increase1h * dualpool:misroute_target:max >= 1",
    "DualpoolLearningStalled": "sum(increase(dualpool_decisions_total[30m])) >= 100 "
    'unless sum(increase(dualpool_answers_total{outcome="learnt"}[30m])) > 0',
    "DualpoolStreamFaults": 'sum(increase(dualpool_streams_total{outcome="fault"}[15m])) > 0',
    "DualpoolProtocolErrors": 'sum(increase(dualpool_streams_total{outcome="protocol"}[15m])) > 0',
    "DualpoolReloadRefused": 'increase(dualpool_reloads_total{outcome="refused"}[15m]) > 0',
    "DualpoolPoolSilent": "sum by (instance, pool, question) "
    '(increase(dualpool_pool_polls_total{question!="tokenize"}[10m])) > 0 unless '
    "sum by (instance, pool, question) "
    '(increase(dualpool_pool_polls_total{outcome="reported"}[10m])) > 0',
    "DualpoolStateNotSaved": 'increase(dualpool_state_snapshots_total{outcome!="saved"}[15m]) > 0',
    "DualpoolReplicasApart": "dualpool_state_connected == 0 or dualpool_state_agrees == 0",
    "DualpoolWorkerMissing": "min_over_time(instance:dualpool_workers_missing:current[5m]) > 0 "
    "or increase(dualpool_worker_restarts_total[15m]) > 2",
}
BY_NAME = {alert.name: alert for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_is_that_of_prometheus(alert):
    rule = RULES[alert.name]
    assert rule["expr"] == EXPRESSIONS[alert.name]
    assert alert.for_s == 60 * int(rule.get("for", "0m").removesuffix("m"))
    assert alert.runbook == rule["annotations"]["runbook"]


def found(name, counts, *, target=0.001, missing=0.0, window=None, state=None):
    """Return what a condition finds if the counters rose so, in `window` seconds alone."""

    def rise(seconds):
        return Counts(counts if window in (None, seconds) else {})

    return BY_NAME[name].condition(Seen(target, ("short", "long"), rise, missing, state or {}))


def misroutes(judged, count):
    return {
        "dualpool_verdicts_total short right": judged - count,
        "dualpool_misroutes_total short refused": count,
    }


@pytest.mark.parametrize(
    ("judged", "count", "holds"),
    [
        (10_000, 10, False),
        (10_000, 19, False),  # 10 + 3 * sqrt(10) is 19.5
        (10_000, 20, True),
        (900, 800, False),  # too few to expect one
    ],
)
def test_misroutes_over_the_target(judged, count, holds):
    assert bool(found("DualpoolMisroutesOverTarget", misroutes(judged, count))) is holds


def test_without_a_target_no_misroutes_are_over_it():
    assert not found("DualpoolMisroutesOverTarget", misroutes(10_000, 9000), target=0.0)


def test_a_reload_was_refused():
    assert found("DualpoolReloadRefused", {"dualpool_reloads_total refused": 1.0}, window=900)
    assert not found("DualpoolReloadRefused", {"dualpool_reloads_total applied": 1.0})


def test_learning_has_stalled():
    decisions = {"dualpool_decisions_total short fits": 100.0}
    assert found("DualpoolLearningStalled", decisions, window=1800)
    assert not found("DualpoolLearningStalled", decisions | {"dualpool_answers_total learnt": 1.0})
    assert not found("DualpoolLearningStalled", {"dualpool_decisions_total short fits": 99.0})


@pytest.mark.parametrize(
    ("name", "outcome"), [("DualpoolStreamFaults", "fault"), ("DualpoolProtocolErrors", "protocol")]
)
def test_streams_that_failed(name, outcome):
    assert found(name, {f"dualpool_streams_total {outcome}": 2.0}, window=900).startswith("2 ")
    assert not found(name, {"dualpool_streams_total finished": 2.0})


def test_a_worker_is_missing():
    assert found("DualpoolWorkerMissing", {}, missing=1.0)
    assert found("DualpoolWorkerMissing", {"dualpool_worker_restarts_total": 3.0}, window=900)
    assert not found("DualpoolWorkerMissing", {"dualpool_worker_restarts_total": 2.0})


def test_a_pool_is_silent():
    polls = "dualpool_pool_polls_total short models"
    assert found("DualpoolPoolSilent", {f"{polls} timeout": 9.0}, window=600) == "short: models"
    answered = {f"{polls} timeout": 9.0, f"{polls} reported": 1.0}
    assert not found("DualpoolPoolSilent", answered)
    other = {**answered, "dualpool_pool_polls_total short load refused": 1.0}
    assert found("DualpoolPoolSilent", other) == "short: load"


def test_a_pool_that_declines_to_count_samples_is_not_silent():
    declined = {"dualpool_pool_polls_total short tokenize unreadable": 1.0}
    assert not found("DualpoolPoolSilent", declined)


@pytest.mark.parametrize("outcome", ["failed", "too_large"])
def test_the_state_is_not_saved(outcome):
    name = "DualpoolStateNotSaved"
    assert found(name, {f"dualpool_state_snapshots_total {outcome}": 2.0}, window=900)
    assert not found(name, {"dualpool_state_snapshots_total saved": 2.0})


def test_replicas_are_apart():
    name = "DualpoolReplicasApart"
    assert "no connection" in found(name, {}, state={"connected": False, "agree": True})
    assert "something else" in found(name, {}, state={"connected": True, "agree": False})
    assert not found(name, {}, state={"connected": True, "agree": True})
    assert not found(name, {}, state={"digest": ""})
