"""A study as JSON."""

import json

import msgspec

from extproc.planner.report.document import as_json
from extproc.planner.sizing.study import examine
from tests.support.planning_cases import ask

STUDY = examine(ask(), max_pools=2)
DOCUMENT = json.loads(msgspec.json.encode(as_json(STUDY, ("a note",))))


def test_the_question_is_part_of_the_answer():
    question = DOCUMENT["question"]
    assert (question["workload"], question["rate_per_s"]) == ("LMSYS", 200)
    assert (question["window"], question["slots"]) == (65_536, "occupancy")
    assert question["estimator"] == "perfect"
    assert question["notes"] == ["a note"]


def test_the_objectives_are_in_seconds():
    assert DOCUMENT["question"]["objectives"] == {
        "ttft_p99_s": 2.0,
        "tpot_p99_s": 0.08,
        "utilisation": 0.85,
    }


def test_the_profile_is_whole_so_that_a_plan_can_be_simulated():
    profile = DOCUMENT["question"]["profile"]
    assert (profile["name"], profile["gpus"]) == ("a100-llama70b", 8)
    assert profile["pace"]["weights_ms"] == 8.0


def test_a_plan_has_its_pools_and_its_sums():
    plan = DOCUMENT["plan"]
    assert plan["gpus"] == sum(pool["gpus"] for pool in plan["pools"]) == STUDY.plan.gpus
    assert plan["instances"] == STUDY.plan.instances
    assert plan["thresholds"] == list(STUDY.plan.thresholds)
    assert plan["saving"] == STUDY.plan.saving
    assert plan["verdict"] == STUDY.plan.verdict


def test_a_pool_has_every_figure():
    assert DOCUMENT["plan"]["pools"][0].keys() == {
        "name",
        "max_model_len",
        "max_num_seqs",
        "sent",
        "threshold",
        "share",
        "mu_per_instance",
        "instances",
        "gpus",
        "utilisation",
        "ttft_p99_s",
        "tpot_p99_s",
        "meets",
    }


def test_every_alternative_is_listed():
    assert [len(plan["pools"]) for plan in DOCUMENT["splits"]] == [2]
    assert len(DOCUMENT["thresholds"]) == len(STUDY.curve)
    rivals = ("one_pool", "one_pool_by_default", "one_pool_by_lengths", "one_pool_by_window")
    assert [len(DOCUMENT[name]["pools"]) for name in rivals] == [1, 1, 1, 1]


def test_changes_have_the_fleet_as_planned_and_resized():
    change, known = DOCUMENT["drift"][0], STUDY.drift[0]
    assert (change["name"], change["share"]) == (known.name, known.share)
    assert change["holds"] == known.held.meets
    assert change["utilisation"] == [pool.utilisation for pool in known.held.pools]
    assert change["resized_gpus"] == known.resized.gpus


def test_every_estimator_is_a_change():
    names = [change["name"] for change in DOCUMENT["estimators"]]
    assert names == ["perfect", "calibrated", "paper", "static 4.0"]
