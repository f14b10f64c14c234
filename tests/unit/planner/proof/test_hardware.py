"""Fleets of several accelerators beside those of one."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.planner.proof.catalogue import Machine
from extproc.planner.proof.hardware import is_mixed, search
from extproc.planner.sizing.question import Objectives, PlanError
from extproc.planner.traffic.lengths import weighted
from extproc.simulator.engine.instance import Profile
from extproc.simulator.engine.profiles import InstanceProfile
from tests.support.planning_cases import ask

LENGTHS = weighted("mixed", np.array([300, 30_000]), np.array([50, 50]), np.array([0.9, 0.1]))
FAST = InstanceProfile(
    name="fast",
    pace=Profile(
        weights_ms=5,
        sequence_ms=0.05,
        chunk_tokens=1 << 30,
        prefill_token_ms=0.03,
        kv_token_ms=5e-5,
    ),
    kv_tokens=500_000,
    gpus=1,
    price_per_gpu_h=8.0,
)
# Its KV cache does not hold the long window, its price is that of short requests.
CHEAP = replace(
    FAST,
    name="cheap",
    pace=replace(FAST.pace, weights_ms=15, prefill_token_ms=0.1),
    kv_tokens=20_000,
    price_per_gpu_h=1.0,
)
MACHINES = (Machine("cheap", CHEAP), Machine("fast", FAST))


def question(**changes):
    goals = {
        "objectives": Objectives(ttft_p99_s=0.5, tpot_p99_s=0.1),
        "long_objectives": Objectives(ttft_p99_s=5, tpot_p99_s=0.2),
    }
    return ask(LENGTHS, rate_per_s=20.0, **(goals | changes))


@pytest.fixture(scope="module")
def found():
    return search(question(), (MACHINES, MACHINES), 8192, 300, thresholds=(8192,))


def test_the_cheapest_mix_beats_every_fleet_of_one_machine(found):
    mixed, single = found.best(mixed=True), found.best(mixed=False)
    assert [shape.profile.name for shape in mixed.shapes] == ["cheap", "fast"]
    assert mixed.usd_per_h < single.usd_per_h


def test_a_machine_batches_as_many_tokens_as_vllm_does_on_it():
    large = replace(FAST, max_num_batched_tokens=8192)
    given = Machine("given", large, max_num_batched_tokens=4096)
    for machine, batched in ((Machine("large", large), 8192), (given, 4096)):
        done = search(question(), ((machine,), (machine,)), 8192, 100, thresholds=(8192,))
        sizes = {shape.max_num_batched_tokens for row in done.rows for shape in row.shapes}
        assert sizes == {batched}


def test_the_cheapest_is_first_and_every_fleet_holds_both_classes(found):
    assert [row.usd_per_h for row in found.rows] == sorted(row.usd_per_h for row in found.rows)
    for row in found.rows:
        assert row.short.hold(question().objectives)
        assert row.long.hold(question().long_objectives)


def test_a_machine_that_cannot_hold_the_window_is_offered_short_requests_only(found):
    assert all(row.shapes[-1].profile.name == "fast" for row in found.rows)
    assert found.tried == 2


def test_fleets_of_one_pool_that_are_dearer_are_named(found):
    named = {row.name for row in found.rows} | set(found.dearer)
    assert any("one pool" in name for name in named)


def test_one_machine_alone_has_no_mix():
    offers = MACHINES[1:], MACHINES[1:]
    done = search(question(), offers, 8192, 200, thresholds=(8192,))
    assert done.best(mixed=True) is None
    assert not any(is_mixed(row) for row in done.rows)


def test_without_a_threshold_the_candidates_are_tried_too():
    goals = Objectives(ttft_p99_s=5, tpot_p99_s=0.2)
    offers = MACHINES, MACHINES
    done = search(question(objectives=goals, long_objectives=None), offers, 8192, 200)
    assert done.tried == 5
    assert any("split at 30080" in row.name for row in done.rows)
    # 384 is as cheap, and further from the threshold of the classes.
    assert done.best(mixed=True).name == "cheap + fast, split at 8192"


def test_objectives_that_no_machine_holds_are_refused():
    goals = Objectives(ttft_p99_s=0.001)
    with pytest.raises(PlanError, match="--pool: no combination holds"):
        search(question(objectives=goals), (MACHINES, MACHINES), 8192, 200)
