"""The papers' closed form, by the papers' figures."""

import pytest

from extproc.planner.sizing.closed_form import ClosedForm, Rates, ideal_saving, split_fleet

PAPER = Rates(homogeneous=2.8, short=11.2, long=2.8)


@pytest.mark.parametrize(
    ("alpha", "short", "long", "saving"), [(0.80, 72, 72, 0.598), (0.68, 61, 115, 0.508)]
)
def test_the_papers_fleets_come_out(alpha, short, long, saving):
    fleet = split_fleet(1000, alpha, PAPER)
    assert fleet == ClosedForm(358, short, long)
    assert fleet.saving == pytest.approx(saving, abs=5e-4)


@pytest.mark.parametrize(("alpha", "saving"), [(0.80, 0.600), (0.68, 0.510)])
def test_the_ideal_saving_is_60_and_51_per_cent(alpha, saving):
    assert ideal_saving(alpha, 4) == pytest.approx(saving)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_pool_without_requests_has_no_instances(alpha):
    fleet = split_fleet(1000, alpha, PAPER)
    assert (fleet.short, fleet.long) == ((0, 358) if alpha == 0 else (90, 0))


def test_a_slower_long_pool_needs_more_instances():
    slow = split_fleet(1000, 0.8, Rates(homogeneous=2.8, short=11.2, long=1.4))
    assert slow.long == 143
    assert slow.saving < split_fleet(1000, 0.8, PAPER).saving


def test_a_short_pool_that_is_no_faster_saves_nothing():
    assert ideal_saving(0.8, 1) == 0


def test_a_small_fleet_loses_by_rounding_what_the_ideal_saves():
    fleet = split_fleet(0.5, 0.5, Rates(homogeneous=1, short=2, long=1))
    assert (fleet.homogeneous, fleet.short + fleet.long) == (1, 2)
    assert fleet.saving == -1
