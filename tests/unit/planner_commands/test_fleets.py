"""The fleet of a simulation: its pools, and their instances."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from extproc.planner.sizing.question import Question, SlotRule
from extproc.planner.sizing.search import Planner
from extproc.planner.traffic.lengths import InputError
from extproc.planner_commands.fleets import FleetOptions, build_fleet, choose_pools, share_out
from extproc.routing.pools import Pool
from tests.support.planning_cases import A100, LMSYS_LENGTHS

SETTINGS = (Pool("small", 4096, 3000), Pool("large", 65_536, 65_536))
PLAN = {
    "question": {
        "profile": {
            "name": "mine",
            "pace": {"weights_ms": 8.0, "sequence_ms": 0.1, "chunk_tokens": 512},
            "kv_tokens": 100_000,
            "gpus": 2,
            "price_per_gpu_h": 2.0,
        },
        "max_num_batched_tokens": 4096,
    },
    "plan": {
        "pools": [
            {"name": "short", "max_model_len": 4096, "max_num_seqs": 64, "threshold": 3000,
             "instances": 2},
            {"name": "long", "max_model_len": 65_536, "max_num_seqs": 1, "threshold": 65_536,
             "instances": 1},
        ]
    },
}  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN))
    return file


def pools(*, is_file: bool = False, **options: object) -> list[Pool]:
    return choose_pools(FleetOptions(**options), SETTINGS, is_file=is_file)


def fleet(rate: float = 20.0, **options: object):
    given = FleetOptions(**options)
    found = choose_pools(given, SETTINGS, is_file=False)
    return build_fleet(given, found, LMSYS_LENGTHS, rate)


def fault(**options: object) -> str:
    with pytest.raises(InputError) as caught:
        fleet(**options)
    return str(caught.value)


def test_without_options_the_pools_are_those_of_the_settings():
    assert pools() == pools(is_file=True) == list(SETTINGS)


@pytest.mark.parametrize(
    ("windows", "names"),
    [
        ((9000,), ["all"]),
        ((1000, 9000), ["short", "long"]),
        ((10, 100, 1000), ["short", "middle", "long"]),
        ((1, 2, 3, 4), ["short", "middle-1", "middle-2", "long"]),
    ],
)
def test_windows_name_their_pools_as_a_plan_does(windows, names):
    assert [pool.name for pool in pools(windows=windows)] == names


def test_windows_are_their_own_thresholds():
    assert pools(windows=(1000, 9000)) == [Pool("short", 1000, 1000), Pool("long", 9000, 9000)]


def test_thresholds_replace_those_of_the_windows_or_of_the_settings():
    assert pools(windows=(1000, 9000), thresholds=(800,))[0].limit == 800
    assert [pool.limit for pool in pools(thresholds=(2000,))] == [2000, 65_536]


@pytest.mark.parametrize("windows", [(9000, 1000), (1000, 1000), (0, 10)])
def test_windows_rise_from_1(windows):
    with pytest.raises(InputError, match="--window: allowed: rising windows"):
        pools(windows=windows)


@pytest.mark.parametrize("thresholds", [(1, 2), (0,)])
def test_there_is_a_threshold_for_each_pool_but_the_largest(thresholds):
    with pytest.raises(InputError, match=r"--threshold: .* given; allowed: 1 of at least 1"):
        pools(thresholds=thresholds)


def test_a_plan_brings_its_pools(plan):
    assert pools(plan=plan) == [Pool("short", 4096, 3000), Pool("long", 65_536, 65_536)]


def test_options_may_agree_with_the_file_and_then_its_names_stay(plan):
    same = {"windows": (4096, 65_536), "thresholds": (3000,)}
    assert pools(is_file=True, **same) == list(SETTINGS)
    assert pools(is_file=True, plan=plan) == list(SETTINGS)


@pytest.mark.parametrize(
    ("options", "flag"),
    [({"windows": (4096, 65_536)}, "--window"), ({"thresholds": (4096,)}, "--threshold")],
)
def test_options_that_contradict_the_file_are_rejected(options, flag):
    with pytest.raises(InputError) as caught:
        pools(is_file=True, **options)
    assert str(caught.value) == (
        f"{flag}: pools of 4096 tokens up to 4096, 65536 tokens up to 65536 differ from the "
        "pools of 4096 tokens up to 3000, 65536 tokens up to 65536 of --config; give one of them"
    )


def test_a_plan_that_contradicts_the_file_is_rejected(plan):
    other = [Pool("small", 4096, 4096), SETTINGS[1]]
    with pytest.raises(InputError, match="--plan: pools of 4096 tokens up to 3000"):
        choose_pools(FleetOptions(plan=plan), other, is_file=True)


def test_a_plan_brings_its_instances_and_its_profile(plan):
    short, long = fleet(plan=plan).pools
    assert (short.instances, short.threshold, short.gpus) == (2, 3000, 2)
    assert short.engine.max_num_batched_tokens == 4096
    assert long.engine.max_num_seqs == 1


@pytest.mark.parametrize("text", ["", "{}", '{"plan": {"pools": []}}'])
def test_a_file_that_is_not_a_plan_is_named(tmp_path, text):
    file = tmp_path / "plan.json"
    file.write_text(text)
    assert fault(plan=file).startswith(f"{file}: ")
    assert fault(plan=file).endswith("allowed: a file written by dualpool plan --json")


def test_given_instances_are_taken():
    assert [pool.instances for pool in fleet(instances=(3, 1)).pools] == [3, 1]


def planned(rate: float = 20.0) -> Planner:
    return Planner(Question(workload=LMSYS_LENGTHS, rate_per_s=rate, profile=A100))


def test_the_planner_chooses_the_sequences_unless_they_are_given():
    by_plan = [pool.max_num_seqs for pool in planned().at((3000,)).pools]
    for rate in (20.0, math.inf):
        found = fleet(rate, instances=(1, 1)).pools
        assert [pool.engine.max_num_seqs for pool in found] == by_plan
    given = fleet(instances=(1, 1), max_num_seqs=(7, 5)).pools
    assert [pool.engine.max_num_seqs for pool in given] == [7, 5]


def test_the_planner_finds_the_instances_for_the_thresholds():
    found = fleet().pools
    assert [p.instances for p in found] == [p.instances for p in planned().at((3000,)).pools]


def test_the_planner_finds_the_instances_for_the_given_sequences():
    at_full_length = replace(planned().question, slot_rule=SlotRule.WINDOW)
    by_window = Planner(at_full_length).at((3000,)).pools
    found = fleet(max_num_seqs=(256, 16)).pools
    assert [p.instances for p in found] == [p.instances for p in by_window]


def test_given_gpus_are_divided_by_load():
    found = fleet(gpus=80).pools
    assert sum(pool.instances for pool in found) == 10
    assert found[1].instances > found[0].instances


def test_an_iteration_holds_a_token_of_every_sequence():
    given = fleet(instances=(1, 1), max_num_seqs=(300, 5), max_num_batched_tokens=100).pools
    assert [pool.engine.max_num_batched_tokens for pool in given] == [300, 100]


def test_prefix_caching_is_an_option():
    assert not fleet(instances=(1, 1)).pools[0].engine.enable_prefix_caching
    cached = fleet(instances=(1, 1), prefix_caching=True)
    assert all(pool.engine.enable_prefix_caching for pool in cached.pools)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instances": (1,)}, "--instances: 1 given; allowed: 2 of at least 1"),
        ({"instances": (1, 0)}, "--instances: 2 given; allowed: 2 of at least 1"),
        ({"max_num_seqs": (1, 2, 3)}, "--max-num-seqs: 3 given; allowed: 2 of at least 1"),
        ({"instances": (1, 1), "gpus": 8}, "--gpus: not allowed together with --instances"),
        ({"gpus": 8}, "--gpus: enough for 1 instances; every pool needs at least one"),
        ({"rate": math.inf}, "--instances: needed: all requests arrive at once"),
        (
            {"windows": (10, 9_999_999), "instances": (1, 1), "max_num_seqs": (9, 9)},
            "fleet: long: the KV cache must hold",
        ),
    ],
)
def test_options_that_contradict_each_other_are_rejected(options, message):
    assert fault(**options).startswith(message)


@pytest.mark.parametrize(
    ("instances", "loads", "shared"),
    [(10, [1, 1], (5, 5)), (10, [9, 1], (9, 1)), (3, [100, 1, 1], (1, 1, 1)), (7, [2, 1], (5, 2))],
)
def test_gpus_are_shared_by_load(instances, loads, shared):
    assert share_out(instances, loads) == shared
