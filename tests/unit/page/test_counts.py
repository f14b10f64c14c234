"""Counters by name and labels."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from extproc.page.counts import ANY, Counts, matching, read_counts

COUNTS = Counts(
    {"m short a": 1.0, "m short b": 2.0, "m long a": 4.0, "more short a": 8.0, "n": 16.0}
)


def test_the_sum_of_a_metric_is_over_all_its_series():
    assert COUNTS.sum("m") == 7


def test_the_sum_can_be_of_one_label():
    assert COUNTS.sum("m", "short") == 3
    assert COUNTS.sum("m", ANY, "a") == 5


def test_what_was_never_counted_is_0():
    assert COUNTS.sum("m", "none") == COUNTS.sum("none") == 0


def test_sums_by_the_next_label():
    assert COUNTS.by_label("m") == {"short": 3, "long": 4}
    assert COUNTS.by_label("m", "short") == {"a": 1, "b": 2}


def test_a_series_without_the_next_label_is_in_no_sum_by_it():
    assert Counts({"m": 1, "m short": 2}).by_label("m") == {"short": 2}


def test_a_rise_is_from_0_for_what_is_new():
    assert Counts.since({"a": 1.0}, {"a": 3.0, "b": 5.0}).values == {"a": 2.0, "b": 5.0}


def test_a_name_is_not_its_beginning():
    assert matching(COUNTS.values, "mo") == []


def test_a_metric_is_read_by_its_exposed_names():
    registry = CollectorRegistry()
    counter = Counter("c", "C.", ["pool", "kind"], registry=registry)
    counter.labels("short", "cut").inc(2)
    seconds = Histogram("s", "S.", buckets=(1,), registry=registry)
    seconds.observe(0.5)
    counts = read_counts((counter, seconds))
    assert counts["c_total short cut"] == 2
    assert counts["s_bucket 1.0"] == counts["s_count"] == 1
    assert not [key for key in counts if "created" in key]
