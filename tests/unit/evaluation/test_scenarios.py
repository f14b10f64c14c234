"""The named scenarios, and the settings under which they run."""

import random

import pytest

from extproc.build import build_rules
from extproc.config.settings import Settings
from extproc.evaluation.scenarios import SCENARIOS, Adapters, Scenario, select
from tests.support.evaluation_cases import case


def test_no_two_scenarios_have_one_name():
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_settings_of_a_scenario_are_valid(scenario):
    changed = scenario.over(Settings())
    assert Settings.model_validate(changed.model_dump()) == changed


def test_a_scenario_has_pools_and_settings_of_its_own():
    scenario = Scenario(
        name="s", phases=(), windows=(100, 200), thresholds=(90, 150),
        settings={"budget": {"target": 0.01}},
    )  # fmt: skip
    changed = scenario.over(Settings())
    pools = build_rules(changed).pools
    assert [(pool.max_model_len, pool.limit) for pool in pools[:-1]] == [(100, 90), (200, 150)]
    assert changed.budget.target == 0.01


def test_what_a_scenario_does_not_set_is_the_operators():
    own = Settings.model_validate({"budget": {"beta": 0.5, "target": 0.02}})
    scenario = Scenario(name="s", phases=(), settings={"budget": {"target": 0.01}})
    assert (scenario.over(own).budget.beta, scenario.over(own).budget.target) == (0.5, 0.01)


def test_scenarios_are_selected_by_a_part_of_their_names():
    assert {scenario.name for scenario in select("4 pools")} == {"4 pools"}
    assert select("") == SCENARIOS
    assert select("no such") == ()


@pytest.mark.parametrize(("zipf", "most"), [(True, 200), (False, 80)])
def test_adapters_share_the_requests_of_their_model(zipf, most):
    rng, adapters = random.Random(0), Adapters(20, zipf=zipf)
    names = [adapters.rename(rng, case()).asked.model for _ in range(1000)]
    counts = {name: names.count(name) for name in names}
    assert len(counts) == 20
    assert max(counts.values()) > most if zipf else max(counts.values()) < most
