"""Fleets that cannot start are rejected; the others count their GPUs and name their pools."""

from dataclasses import replace

import pytest

from extproc.planner.simulation.fleet import FleetSpec
from extproc.routing.pools import Pool
from tests.support.small_fleets import TWO, pool

SHORT, LONG = TWO.pools


@pytest.mark.parametrize(
    "change", [{"instances": 0}, {"threshold": 0}, {"gpus": 0}, {"overhead_s": -0.1}]
)
def test_a_pool_needs_an_instance_a_threshold_and_a_gpu(change):
    with pytest.raises(ValueError, match="short: instances, threshold and gpus are at least 1"):
        replace(SHORT, **change)


def test_a_pool_needs_a_kv_cache_for_its_window():
    with pytest.raises(ValueError, match="short: the KV cache must hold max_model_len tokens"):
        replace(SHORT, engine=replace(SHORT.engine, num_blocks=15))


def test_a_kv_cache_of_exactly_the_window_is_enough():
    assert replace(SHORT, engine=replace(SHORT.engine, num_blocks=16)).threshold == 64


def test_the_slots_of_a_pool_are_those_of_all_its_instances():
    assert SHORT.slots == SHORT.instances * SHORT.engine.max_num_seqs == 8


@pytest.mark.parametrize(
    "pools", [(), (LONG, SHORT), (SHORT, SHORT)], ids=["none", "falling", "equal"]
)
def test_the_windows_of_a_fleet_rise(pools):
    with pytest.raises(ValueError, match="the smallest first"):
        FleetSpec(pools)


def test_the_gpus_of_a_fleet_are_those_of_every_instance():
    assert TWO.gpus == 4
    assert FleetSpec((replace(SHORT, gpus=8), LONG)).gpus == 2 * 8 + 2


def test_the_routing_rule_sees_names_windows_and_thresholds():
    fleet = FleetSpec((replace(SHORT, threshold=40), LONG))
    assert fleet.routing() == (Pool("short", 64, 40), Pool("long", 256, 256))


def test_one_pool_is_the_largest_on_the_same_gpus():
    (alone,) = TWO.one_pool(16).pools
    assert (alone.name, alone.instances) == ("long", 4)
    assert TWO.one_pool(16).gpus == TWO.gpus


def test_one_pool_has_its_own_number_of_sequences():
    (alone,) = TWO.one_pool(100).pools
    assert (alone.engine.max_num_seqs, alone.instances) == (100, 4)
    assert alone.engine.max_num_batched_tokens == 100  # vLLM needs as many


def test_one_pool_takes_every_request():
    fleet = FleetSpec((SHORT, replace(LONG, threshold=200)))
    assert fleet.one_pool(16).pools[0].threshold == 256


@pytest.mark.parametrize(("gpus", "instances"), [(1, 2), (2, 1), (3, 1)])
def test_one_pool_has_whole_instances_and_at_least_one(gpus, instances):
    fleet = FleetSpec((pool("short", 64), replace(pool("long", 256), gpus=gpus)))
    assert fleet.one_pool(16).pools[0].instances == max(1, instances)
