"""Counters that are plain numbers until they are published."""

import pytest
from prometheus_client import CollectorRegistry

from extproc.stream.counters import TallyCounter, TallyGauge, TallyHistogram


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_events_are_counted_by_their_labels(registry):
    counter = TallyCounter("events", "E.", ["kind"], registry=registry)
    counter.count("a")
    counter.count("a", times=3)
    counter.count("b")
    assert registry.get_sample_value("events_total", {"kind": "a"}) == 4
    assert registry.get_sample_value("events_total", {"kind": "b"}) == 1


def test_figures_are_those_of_the_last_collection(registry):
    counter = TallyCounter("events", "E.", registry=registry)
    for expected in (1, 2):
        counter.count()
        assert registry.get_sample_value("events_total") == expected


def test_what_an_earlier_process_counted_stays(registry):
    counter = TallyCounter("events", "E.", ["kind"], registry=registry)
    counter.labels("a").inc(5)
    counter.count("a")
    assert registry.get_sample_value("events_total", {"kind": "a"}) == 6


def test_removed_series_begin_anew(registry):
    counter = TallyCounter("events", "E.", ["kind", "pool"], registry=registry)
    counter.count("a", "short")
    counter.count("b", "short")
    counter.publish()
    counter.remove_by_labels({"kind": "a"})
    assert registry.get_sample_value("events_total", {"kind": "a", "pool": "short"}) is None
    assert registry.get_sample_value("events_total", {"kind": "b", "pool": "short"}) == 1
    counter.count("a", "short")
    assert registry.get_sample_value("events_total", {"kind": "a", "pool": "short"}) == 1


def test_a_series_that_was_removed_while_it_was_published_goes_with_the_next(registry):
    counter = TallyCounter("events", "E.", ["kind"], registry=registry)
    counter.count("a")
    counter.publish()
    del counter._totals[("a",)]  # what the other thread has seen last
    assert registry.get_sample_value("events_total", {"kind": "a"}) is None


@pytest.mark.parametrize(("value", "expected"), [(0.5, 1), (1.0, 1), (1.5, 0)])
def test_a_bucket_holds_values_up_to_its_bound(registry, value, expected):
    histogram = TallyHistogram("seconds", "S.", buckets=(1.0, 2.0), registry=registry)
    histogram.count(value)
    assert registry.get_sample_value("seconds_bucket", {"le": "1.0"}) == expected
    assert registry.get_sample_value("seconds_bucket", {"le": "+Inf"}) == 1
    assert registry.get_sample_value("seconds_sum") == value


def test_a_gauge_is_what_is_there_now(registry):
    gauge = TallyGauge("streams", "S.", registry=registry)
    gauge.now += 2
    assert registry.get_sample_value("streams") == 2


@pytest.fixture
def errors(registry):
    return TallyHistogram("error", "E.", ["kind"], buckets=(1.0, 2.0), registry=registry)


def test_values_are_counted_by_their_labels(registry, errors):
    errors.count(0.5, "a", times=3)
    errors.count(0.5, "b")
    assert registry.get_sample_value("error_count", {"kind": "a"}) == 3
    assert registry.get_sample_value("error_sum", {"kind": "a"}) == 1.5


def test_removed_values_begin_anew(registry, errors):
    errors.count(0.5, "a")
    errors.publish()
    errors.remove_by_labels({"kind": "a"})
    assert registry.get_sample_value("error_count", {"kind": "a"}) is None
    errors.count(0.5, "a")
    assert registry.get_sample_value("error_count", {"kind": "a"}) == 1


def test_values_that_were_removed_while_they_were_published_go_with_the_next(registry, errors):
    errors.count(0.5, "a")
    errors.publish()
    del errors._totals[("a",)]  # what the other thread has seen last
    assert registry.get_sample_value("error_count", {"kind": "a"}) is None
