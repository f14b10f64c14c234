"""The metrics: names, labels and what was learnt."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from extproc.budget.category import label
from extproc.budget.values import Learnt
from extproc.routing.load.pool_load import PoolLoad
from extproc.stream.metrics import (
    LearntCollector,
    LoadCollector,
    Metrics,
    WindowCollector,
    WorkerMetrics,
)
from tests.support.conversation import counted, stages

LEARNT = Learnt(
    categories={"prose/m": {"samples": 7, "basis": "prior"}, "code/m": {"samples": 3}},
    models={"m": {"surprise": 1.5}},
    limits={"8192": {"target": 0.001}},
    evicted=4,
    tenants={"kept": 2, "evicted": 1, "own_weights": 1},
)


def shown(learnt):
    registry = CollectorRegistry()
    registry.register(LearntCollector(learnt))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {s.name: s.labels | {"": s.value} for f in families for s in f.samples}


def test_what_was_learnt_is_shown_by_subject():
    assert shown(LEARNT) == {
        "dualpool_category_samples": {"category": "code/m", "": 3},
        "dualpool_model_surprise": {"model": "m", "": 1.5},
        "dualpool_limit_target": {"limit": "8192", "": 0.001},
        "dualpool_categories_evicted_total": {"": 4},
        "dualpool_tenants_kept": {"": 2},
        "dualpool_tenants_evicted_total": {"": 1},
        "dualpool_tenants_own_weights": {"": 1},
    }


def test_nothing_learnt_is_nothing_shown():
    assert shown(Learnt()) == {"dualpool_categories_evicted_total": {"": 0}}


def test_every_metric_has_the_prefix_and_help():
    registry = CollectorRegistry()
    Metrics(registry)
    WorkerMetrics(registry)
    registry.register(LearntCollector(LEARNT))
    registry.register(LoadCollector(dict, dict))
    registry.register(WindowCollector(list, list))
    for family in registry.collect():
        assert family.name.startswith("dualpool_")
        assert family.documentation.endswith(".")


def test_two_services_can_count_apart_in_one_process():
    one, other = stages(), stages()
    one.metrics.unread.count()
    assert counted(other.metrics.unread) == {}


def test_a_long_name_has_the_label_that_counters_have():
    long = "prose/" + "m" * 300
    found = shown(Learnt({long: {"samples": 1}}, {}, {}))["dualpool_category_samples"]
    assert found["category"] == label(long)


def test_the_series_of_a_label_that_was_replaced_are_removed():
    metrics = stages().metrics
    for category in ("a/m", "b/m"):
        metrics.decisions.labels("short", category, "fits", "prior").inc()
        metrics.budget_error.labels(category).observe(0.1)
    metrics.forget_category("a/m")
    for metric in (metrics.decisions, metrics.budget_error):
        samples = [s for family in metric.collect() for s in family.samples]
        assert {s.labels["category"] for s in samples} == {"b/m"}


def test_all_tallies_are_published():
    metrics = stages().metrics
    metrics.unread.count()
    metrics.decision_seconds.count(0.001)
    metrics.streams.now = 3
    metrics.publish()
    assert metrics.unread._value.get() == 1
    assert metrics.decision_seconds._sum.get() == 0.001
    assert metrics.streams._value.get() == 3


def test_the_load_of_a_pool_is_shown_if_it_is_known():
    loads = {
        "short": PoolLoad(servers=3, known=2, down=1, running=5, waiting=1, kv_usage=0.5),
        "long": PoolLoad(servers=2),
    }
    polls = {("long", "load", "timeout"): 7}
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in LoadCollector(lambda: loads, lambda: polls).collect()
        for sample in family.samples
    }
    assert found == {
        ("dualpool_pool_requests", "short", "running"): 5,
        ("dualpool_pool_requests", "short", "waiting"): 1,
        ("dualpool_pool_kv_usage", "short"): 0.5,
        ("dualpool_pool_preemptions_per_second", "short"): 0,
        ("dualpool_pool_servers", "short", "reporting"): 2,
        ("dualpool_pool_servers", "short", "silent"): 0,
        ("dualpool_pool_servers", "short", "down"): 1,
        ("dualpool_pool_servers", "long", "reporting"): 0,
        ("dualpool_pool_servers", "long", "silent"): 2,
        ("dualpool_pool_servers", "long", "down"): 0,
        ("dualpool_pool_polls_total", "long", "load", "timeout"): 7,
    }


def test_windows_and_disagreements_are_shown_by_pool():
    collector = WindowCollector(
        lambda: [("short", "settings", 8192), ("short", "used", 4096)],
        lambda: [("short", "window", 1)],
    )
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }
    assert found == {
        ("dualpool_pool_window_tokens", "short", "settings"): 8192,
        ("dualpool_pool_window_tokens", "short", "used"): 4096,
        ("dualpool_pool_disagreements", "short", "window"): 1,
    }
