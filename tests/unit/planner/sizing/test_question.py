"""Questions that have no answer are rejected."""

import pytest

from extproc.config.errors import UserError
from extproc.planner.sizing.question import (
    HOURS_PER_YEAR,
    WINDOW,
    Objectives,
    PlanError,
    SlotRule,
)
from extproc.simulator.engine.profiles import NAMED
from tests.support.planning_cases import ask


@pytest.mark.parametrize(
    "goals",
    [
        {"ttft_p99_s": 0.0},
        {"ttft_p99_s": -1.0},
        {"tpot_p99_s": 0.0},
        {"utilisation": 0.0},
        {"utilisation": 1.0},
    ],
)
def test_objectives_that_no_fleet_can_meet_are_rejected(goals):
    with pytest.raises(PlanError, match="objectives must be above 0, and the utilisation below 1"):
        Objectives(**goals)


@pytest.mark.parametrize("change", [{"rate_per_s": 0.0}, {"hours_per_year": 0.0}])
def test_a_rate_and_a_year_are_above_0(change):
    with pytest.raises(PlanError, match="the rate and the hours of a year must be above 0"):
        ask(**change)


@pytest.mark.parametrize("change", [{"window": 0}, {"max_num_seqs": 0}])
def test_a_window_and_its_sequences_are_at_least_1(change):
    with pytest.raises(PlanError, match="the window and max_num_seqs must be at least 1"):
        ask(**change)


def test_an_iteration_has_a_token_to_decode_and_one_to_prefill():
    with pytest.raises(PlanError, match="max_num_batched_tokens must be at least 2"):
        ask(max_num_batched_tokens=1)
    assert ask(max_num_batched_tokens=2).max_num_batched_tokens == 2


def test_a_plan_error_is_the_users_to_mend():
    assert issubclass(PlanError, UserError)


def test_the_objectives_are_the_papers_and_the_slots_are_not():
    question = ask()
    assert (question.window, question.hours_per_year) == (WINDOW, HOURS_PER_YEAR) == (65_536, 8760)
    assert question.slot_rule is SlotRule.OCCUPANCY
    assert question.objectives == Objectives(ttft_p99_s=2.0, tpot_p99_s=0.08, utilisation=0.85)


@pytest.mark.parametrize(
    ("name", "batched", "seqs"),
    [
        ("a100-llama70b", 2048, 256),
        ("a100-llama70b", 8192, 256),
        ("h100-llama8b", 8192, 1024),
        ("h100-llama8b", 512, 512),
    ],
)
def test_the_default_of_max_num_seqs_is_that_of_the_profile(name, batched, seqs):
    question = ask(profile=NAMED[name], max_num_batched_tokens=batched)
    assert question.default_num_seqs == seqs


def test_a_rate_that_no_fleet_has_is_refused():
    with pytest.raises(PlanError, match=r"1e\+09 requests per second; allowed: up to 1e\+06"):
        ask(rate_per_s=1e9)
