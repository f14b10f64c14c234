"""The rules and alerts of deploy/prometheus, by promtool and against the metrics that exist."""

import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client import CollectorRegistry

from deploy.grafana.panels import PANELS
from extproc.budget.values import Learnt
from extproc.config.addresses import host_port
from extproc.config.load import load
from extproc.routing.load.pool_load import PoolLoad
from extproc.simulator.engine import A100_80GB, Engine
from extproc.simulator.pool.metrics import PoolMetrics
from extproc.stream.metrics import (
    LearntCollector,
    LoadCollector,
    Metrics,
    SharedMetrics,
    WindowCollector,
    WorkerMetrics,
)
from tests.support.paths import ROOT
from tests.support.pool_client import settings

FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")


def read(name):
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


RULES = [rule for group in read("rules.yml")["groups"] for rule in group["rules"]]
ALERTS = [rule for group in read("alerts.yml")["groups"] for rule in group["rules"]]
TESTED = [test for case in read("tests.yml")["tests"] for test in case.get("alert_rule_test", [])]
QUERIES = [query.expr for panel in PANELS for query in panel.queries]


def promtool(*arguments):
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("no promtool: apt-get install --no-install-recommends prometheus")
    done = subprocess.run(
        [binary, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def named(pattern):
    """The metrics that rules, alerts and panels name."""
    text = " ".join([*(rule["expr"] for rule in RULES + ALERTS), *QUERIES])
    return set(re.findall(rf"(?<![\w:]){pattern}\w+", text))


def shown(registry):
    """The names of a registry's series, also of those without a sample yet."""
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    return {
        family.name + suffix for family in registry.collect() for suffix in suffixes[family.type]
    }


def test_promtool_finds_no_fault():
    promtool("check", "config", "--lint=all", "prometheus.yml")
    promtool("check", "rules", "--lint=all", "rules.yml", "alerts.yml")


def test_alerts_fire_and_do_not_fire_as_they_should():
    promtool("test", "rules", "tests.yml")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_is_tested_both_ways(alert):
    tested = [test for test in TESTED if test["alertname"] == alert["alert"]]
    assert {bool(test.get("exp_alerts")) for test in tested} == {True, False}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_has_its_runbook(alert):
    assert alert["annotations"]["runbook"] == f"docs/runbooks.md#{alert['alert'].lower()}"
    assert f"\n## {alert['alert']}\n" in RUNBOOKS


def test_there_is_no_runbook_without_an_alert():
    headings = re.findall(r"^## (Dualpool\w+)$", RUNBOOKS, re.MULTILINE)
    assert headings == [alert["alert"] for alert in ALERTS]


def test_the_service_has_every_metric_that_is_asked_for():
    registry = CollectorRegistry()
    Metrics(registry)
    WorkerMetrics(registry)
    SharedMetrics(registry)
    figures = {"relative_error": 0.0, "bytes_per_token": 4.0}
    limit = {"target": 0.001, "misroute_forecast": 0.0, "tenant_forecast_max": 0.0}
    tenants = {"kept": 1.0, "evicted": 0.0, "own_weights": 0.0}
    learnt = Learnt({"prose/m": figures}, {}, {"8192": limit}, tenants=tenants)
    registry.register(LearntCollector(learnt))
    known = {"short": PoolLoad(servers=1, known=1)}
    registry.register(LoadCollector(lambda: known, dict))
    registry.register(WindowCollector(list, lambda: [("short", "window", 1)]))
    assert named("dualpool_") <= shown(registry)


def test_the_pools_have_every_metric_that_is_asked_for():
    engine = settings().engine
    metrics = PoolMetrics("m", engine)
    metrics.watch(Engine(engine, A100_80GB))
    assert named("vllm:") <= shown(metrics.registry)


def test_every_series_that_is_asked_for_is_recorded():
    recorded = {rule["record"] for rule in RULES}
    assert named(r"(?!vllm:)[a-z_]+:(?:\w+:)?") <= recorded


def test_the_jobs_are_those_of_the_stack_of_containers():
    stack = load(ROOT / "envoy" / "dualpool.yaml")
    found = {
        job["job_name"]: [(sd["names"], sd["port"]) for sd in job["dns_sd_configs"]]
        for job in read("prometheus.yml")["scrape_configs"]
    }
    pools = [host_port(pool.address) for pool in stack.pools]
    assert found == {
        "dualpool": [(["dualpool"], host_port(stack.listen.http)[1])],
        "envoy": [(["envoy"], host_port(stack.envoy.metrics)[1])],
        "pool": [([pool.name for pool in stack.pools], pools[0][1])],
    }
    assert [host for host, _ in pools] == [pool.name for pool in stack.pools]
