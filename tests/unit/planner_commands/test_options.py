"""The options of `dualpool plan` as a question."""

import math

import numpy as np
import pytest

from extproc.planner.sizing.estimators import CALIBRATED, RoutingError
from extproc.planner.sizing.question import (
    HOURS_PER_YEAR,
    MAX_NUM_BATCHED_TOKENS,
    MAX_NUM_SEQS,
    WINDOW,
    Objectives,
    PlanError,
    SlotRule,
)
from extproc.planner.traffic.lengths import Trace
from extproc.planner.traffic.rows import Reading
from extproc.planner_commands.inputs import InputOptions
from extproc.planner_commands.options import PlanOptions, load_profile, question_of, rate_of
from extproc.simulator.engine.profiles import NAMED, ProfileError, write_profile
from tests.support.planning_cases import A100, LMSYS_LENGTHS

TRACE = Trace(
    name="three",
    at_s=np.array([0.0, 1.0, 4.0]),
    prompt=np.array([10, 20, 30]),
    output=np.array([1, 2, 3]),
)
TIMED = Reading(requests=TRACE, count=3)
UNTIMED = Reading(requests=LMSYS_LENGTHS, count=0)


def question(reading: Reading = UNTIMED, rate: float | None = 10.0, **options: object):
    return question_of(PlanOptions(inputs=InputOptions(), rate=rate, **options), reading)


def test_the_defaults_are_those_of_a_question():
    asked = question()
    assert (asked.window, asked.max_num_seqs) == (WINDOW, MAX_NUM_SEQS)
    assert asked.max_num_batched_tokens == MAX_NUM_BATCHED_TOKENS
    assert asked.hours_per_year == HOURS_PER_YEAR
    assert (asked.objectives, asked.slot_rule) == (Objectives(), SlotRule.OCCUPANCY)
    assert (asked.estimator, asked.profile) == (CALIBRATED, A100)


def test_objectives_are_given_in_ms():
    asked = question(slo_ttft_ms=500.0, slo_tpot_ms=20.0, utilisation=0.7)
    assert asked.objectives == Objectives(ttft_p99_s=0.5, tpot_p99_s=0.02, utilisation=0.7)


def test_slots_may_follow_the_actual_lengths():
    assert question(slots="occupancy").slot_rule is SlotRule.OCCUPANCY


def test_a_trace_gives_its_lengths():
    assert question(TIMED).workload.total.tolist() == [11, 22, 33]


def test_a_trace_gives_its_rate_unless_one_is_given():
    assert rate_of(None, TIMED) == pytest.approx(2 / 4)
    assert rate_of(7.0, TIMED) == 7.0


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_is_above_0(rate):
    with pytest.raises(PlanError, match=r"--rate: .* is not allowed: requests per second, above 0"):
        rate_of(rate, UNTIMED)


def test_an_input_without_times_needs_a_rate():
    with pytest.raises(PlanError, match="--rate: missing; the input has no arrival times"):
        rate_of(None, UNTIMED)


def test_the_columns_that_hold_times_are_named():
    with pytest.raises(PlanError, match=r"at_s beside prompt_tokens \(lengths\)$"):
        rate_of(None, UNTIMED)


def test_requests_that_arrive_at_once_have_no_rate():
    burst = Trace(name="b", at_s=np.zeros(2), prompt=np.array([1, 1]), output=np.array([1, 1]))
    with pytest.raises(
        PlanError, match="--rate: missing; all requests of the input arrive at once"
    ):
        rate_of(None, Reading(requests=burst, count=2))


@pytest.mark.parametrize("pools", [0, 9])
def test_there_are_1_to_8_pools(pools):
    with pytest.raises(PlanError, match=f"--pools: {pools} is not allowed: from 1 to 8"):
        question(pools=pools)


def test_errors_may_be_given():
    asked = question(errors="0.001, 0.02")
    assert (asked.estimator.name, asked.estimator.at(4096)) == ("given", RoutingError(0.001, 0.02))


@pytest.mark.parametrize("errors", ["", "0.1", "a,b", "0.1,0.2,0.3", "0.6,0.6", "-0.1,0"])
def test_errors_are_two_shares(errors):
    with pytest.raises(PlanError, match="is not allowed: two shares, such as"):
        question(errors=errors)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_a_profile_may_be_named(name):
    assert load_profile(name) == NAMED[name]


def test_a_profile_may_be_a_file(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(write_profile(A100))
    assert load_profile(str(file)) == A100


def test_a_price_replaces_the_profiles():
    assert load_profile("a10g", 1.25).price_per_gpu_h == 1.25
    assert question(price=0.0).profile.price_per_gpu_h == 0.0


@pytest.mark.parametrize("price", [-0.1, math.inf, math.nan])
def test_a_price_is_a_finite_number_of_usd(price):
    with pytest.raises(ProfileError, match=r"--price: .* is not allowed: USD per GPU and hour"):
        load_profile("a10g", price)


def test_an_unknown_profile_lists_the_known_ones():
    with pytest.raises(ProfileError, match="b200: no such profile; allowed: a100-llama70b"):
        load_profile("b200")


def test_a_broken_file_is_named(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text("{}")
    with pytest.raises(ProfileError, match=f"{file}: "):
        load_profile(str(file))


def test_a_model_without_machines_is_refused():
    with pytest.raises(PlanError, match="--model: only together with --pool"):
        question(model="llama-3-70b")
