"""Of how many requests one is observed."""

import pytest

from extproc.stream.sampling import MOST, Sampling
from tests.support.clock import Clock


def at_rate(rate, share, seconds=60):
    """Count requests at a steady rate; return of how many one is observed at the end."""
    clock = Clock()
    sampling = Sampling(clock)
    for _ in range(int(rate * seconds)):
        clock.now += 1.0 / rate
        found = sampling.one_in(share)
    return found


@pytest.mark.parametrize(
    ("rate", "share", "one_in"),
    [(5, 0.05, 1), (38, 0.05, 4), (100, 0.05, 10), (1000, 0.05, 20), (1000, 1.0, 1)],
)
def test_as_many_are_observed_as_can_be_at_the_rate(rate, share, one_in):
    assert at_rate(rate, share) == pytest.approx(one_in, abs=1 if one_in > 1 else 0)


def test_several_processes_share_the_rate():
    clock = Clock()
    sampling = Sampling(clock)
    for _ in range(6000):
        clock.now += 0.01
        found = sampling.one_in(0.001, 3)
    assert found == pytest.approx(30, abs=1)


def test_one_stands_for_a_bounded_number():
    assert at_rate(20_000, 1e-6, seconds=3) <= MOST


def test_after_a_pause_all_are_observed_again():
    clock = Clock()
    sampling = Sampling(clock)
    for _ in range(10_000):
        sampling.one_in(0.01)
    clock.now = 120.0
    assert sampling.one_in(0.01) == 1
