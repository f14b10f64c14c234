"""Lengths and traces as values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.planner.traffic.lengths import (
    Arrival,
    Length,
    Trace,
    equally_weighted,
    from_cdf,
    merged,
    overlaid,
    poisson,
    replay,
    weighted,
)

PAIRS = st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 900)), min_size=1, max_size=30)
POINTS = st.lists(
    st.tuples(st.integers(2, 1 << 20), st.integers(1, 50)),
    min_size=1,
    max_size=12,
    unique_by=lambda point: point[0],
)


def rows(*pairs, name="w"):
    prompt, output = np.array(pairs, dtype=np.int64).T
    return equally_weighted(name, prompt, output)


def trace(*at_s, prefixes=()):
    lengths = np.arange(1, len(at_s) + 1)
    times = np.array(at_s, dtype=np.float64)
    return Trace(name="t", at_s=times, prompt=lengths, output=lengths, prefixes=prefixes)


def shares(points):
    """Make a CDF of (tokens, mass), as (tokens, share)."""
    tokens, mass = zip(*sorted(points), strict=True)
    return [(t, sum(mass[: i + 1]) / sum(mass)) for i, t in enumerate(tokens)]


def test_share_within_counts_prompt_and_output():
    assert rows((90, 10), (100, 1)).share_within(100) == 0.5


@given(PAIRS, st.integers(2, 9900))
def test_a_split_keeps_every_request_once(pairs, threshold):
    workload = rows(*pairs)
    alpha = workload.share_within(threshold)
    if 0 < alpha < 1:
        short, long = workload.split(threshold)
        assert len(short) + len(long) == len(workload)
        assert short.total.max() <= threshold < long.total.min()
        assert merged((short, long), (alpha, 1 - alpha)).share_within(threshold) == pytest.approx(
            alpha
        )


def test_a_split_with_an_empty_side_is_an_error():
    with pytest.raises(ValueError, match="no request is left"):
        rows((1, 1)).split(10)


@given(PAIRS)
def test_mean_and_scv_are_those_of_numpy(pairs):
    workload = rows(*pairs)
    total = workload.total
    assert workload.mean(total) == pytest.approx(total.mean())
    assert workload.scv(total) == pytest.approx(total.var() / total.mean() ** 2, abs=1e-12)


@given(PAIRS, st.floats(0.001, 1))
def test_a_quantile_is_the_smallest_value_that_holds_its_share(pairs, q):
    workload = rows(*pairs)
    at = workload.quantile(workload.total, q)
    assert workload.share_within(at) >= q - 1e-9
    assert workload.share_within(at - 1) < q


def test_merged_workloads_give_requests_by_their_weights():
    both = merged((rows((1, 1)), rows((5, 5), (6, 6))), (3, 1))
    assert both.share_within(2) == 0.75
    assert both.name == "w + w"


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_a_weight_is_above_0(weight):
    one = np.array([1])
    with pytest.raises(ValueError, match="weights above 0"):
        weighted("w", one, one, np.array([weight]))


def test_a_sample_follows_the_weights_and_its_seed():
    both = merged((rows((1, 1)), rows((5, 5))), (9, 1))
    prompt, output = both.sample(np.random.default_rng(7), 10_000)
    assert (prompt == 1).mean() == pytest.approx(0.9, abs=0.02)
    assert (both.sample(np.random.default_rng(7), 10_000)[1] == output).all()


@given(POINTS)
def test_a_cdf_is_kept_at_its_points(points):
    cdf = shares(points)
    workload = from_cdf("c", cdf)
    assert [workload.share_within(t) for t, _ in cdf] == pytest.approx([s for _, s in cdf])


@given(POINTS, st.floats(0.01, 0.99))
def test_a_cdf_gives_output_its_share(points, share):
    workload = from_cdf("c", shares(points), share)
    wanted = np.clip(workload.total * share, 1, workload.total - 1)
    assert abs(workload.output - wanted).max() <= 0.5


def test_a_point_with_no_share_is_where_a_cdf_begins():
    assert from_cdf("c", [(100, 0.0), (200, 1.0)]).total.min() == 101


@pytest.mark.parametrize(
    "points", [[], [(1, 1.0)], [(8, 0.5)], [(8, 0.5), (8, 1.0)], [(8, 0.5), (9, 0.4), (10, 1.0)]]
)
def test_what_is_no_cdf_is_refused(points):
    with pytest.raises(ValueError, match=r"^c: "):
        from_cdf("c", points)


def test_poisson_arrivals_have_the_rate_and_follow_their_seed():
    first, again = (poisson(rows((3, 2)), 50.0, 20_000, seed=4) for _ in range(2))
    assert first.rate == pytest.approx(50, rel=0.03)
    assert (first.at_s == again.at_s).all()
    assert (np.diff(first.at_s) >= 0).all()


def test_a_replay_starts_at_0_and_keeps_its_bursts():
    assert replay(trace(4, 4, 10), speed=2).at_s.tolist() == [0, 0, 3]


def test_the_rate_is_of_the_intervals():
    assert trace(0, 1, 2).rate == 1
    assert trace(0, 0).rate == math.inf


def test_arrivals_are_the_rows():
    first, second = trace(0, 3, prefixes=((7, 8), (7,))).arrivals()
    assert first == Arrival(at_s=0, length=Length(1, 1), prefix=(7, 8))
    assert second == Arrival(at_s=3, length=Length(2, 2), prefix=(7,))


def test_a_trace_out_of_order_is_refused():
    with pytest.raises(ValueError, match="sorted by time"):
        trace(1, 0)


def test_overlaid_traces_begin_together():
    both = overlaid((trace(100, 104), trace(7, 9)))
    assert both.at_s.tolist() == [0, 0, 2, 4]
    assert both.prompt.tolist() == [1, 1, 2, 2]


def test_a_prefix_is_not_shared_between_traces():
    both = overlaid((trace(0, prefixes=((1, 2),)), trace(1, prefixes=((1, 2),)), trace(2)))
    assert both.prefixes == ((3, 6), (4, 7), ())


def test_a_traces_workload_has_its_lengths():
    assert trace(0, 1, 5).workload().total.tolist() == [2, 4, 6]
