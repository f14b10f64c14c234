"""Many rows as few: what is kept, and what may change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.planner.traffic.condensing import condense, lightened
from extproc.planner.traffic.lengths import equally_weighted


def drawn(rows, seed):
    rng = np.random.default_rng(seed)
    prompt = np.ceil(rng.lognormal(6, 1.5, rows)).astype(np.int64)
    return equally_weighted("drawn", prompt, rng.integers(1, 2000, rows))


@given(st.integers(2049, 6000), st.integers(0, 100))
def test_means_and_weights_are_kept(rows, seed):
    workload = drawn(rows, seed)
    prompt, output, weights = condense(workload)
    assert weights.sum() == pytest.approx(1)
    assert weights @ prompt == pytest.approx(workload.mean(workload.prompt))
    assert weights @ output == pytest.approx(workload.mean(workload.output))


def test_few_rows_stay_as_they_are():
    workload = drawn(2048, 1)
    assert (condense(workload)[0] == workload.prompt).all()


def test_a_hundred_thousand_rows_become_few_thousand():
    assert condense(drawn(100_000, 1))[0].size < 4000


def test_the_spread_of_outputs_is_kept():
    workload = drawn(100_000, 2)
    _, output, weights = condense(workload)
    square = workload.mean(workload.output.astype(float) ** 2)
    assert weights @ output**2 == pytest.approx(square, rel=0.02)


def test_a_light_workload_is_of_whole_tokens_and_nearly_the_same():
    heavy = drawn(50_000, 3)
    light = lightened(heavy, 10_000)
    assert len(light) < 4000
    assert light.share_within(2000) == pytest.approx(heavy.share_within(2000), abs=0.01)


def test_a_workload_with_few_rows_is_not_made_lighter():
    workload = drawn(5000, 3)
    assert lightened(workload, 5000) is workload
