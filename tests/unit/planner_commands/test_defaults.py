"""The commands' flags have the defaults of the options that they fill."""

import argparse
import importlib
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from extproc.commands import evaluate, plan, simulate
from extproc.commands.arguments import PROFILES
from extproc.evaluation.options import THRESHOLDS, EvaluateOptions
from extproc.planner.simulation.rules import RuleName
from extproc.planner.sizing.question import SlotRule
from extproc.planner_commands.inputs import InputOptions
from extproc.planner_commands.options import PlanOptions
from extproc.planner_commands.simulate import COMPARED, SimulateOptions
from extproc.simulator.engine.profiles import NAMED

ROOMS = {
    plan: "extproc.planner_commands.plan",
    simulate: "extproc.planner_commands.simulate",
    evaluate: "extproc.evaluation.run",
}


@pytest.fixture
def run(monkeypatch):
    """Return the options that a command passes on."""

    def passed(command: ModuleType, *words: str) -> object:
        found = []
        name = f"run_{command.__name__.rpartition('.')[2]}"
        room = importlib.import_module(ROOMS[command])
        monkeypatch.setattr(room, name, lambda options: found.append(options) or 0)
        parser = argparse.ArgumentParser()
        command.fill(parser)
        assert command.run(parser.parse_args(words)) == 0
        return found[0]

    return passed


def test_a_plan_without_flags_has_the_defaults(run):
    assert run(plan) == PlanOptions(inputs=InputOptions())


def test_a_simulation_without_flags_has_the_defaults(run):
    assert run(simulate) == SimulateOptions(inputs=InputOptions())


def test_an_evaluation_without_flags_has_the_defaults(run):
    assert run(evaluate) == EvaluateOptions()


@pytest.mark.parametrize(
    ("command", "flag", "names"),
    [
        (plan, "--slots", [rule.value for rule in SlotRule]),
        (simulate, "--rule", [rule.value for rule in RuleName]),
    ],
)
def test_a_flag_allows_the_names_that_there_are(command, flag, names):
    parser = argparse.ArgumentParser()
    command.fill(parser)
    [action] = [each for each in parser._actions if flag in each.option_strings]
    assert list(action.choices) == names


def test_the_help_names_every_profile_and_threshold():
    assert tuple(NAMED) == PROFILES
    parser = argparse.ArgumentParser()
    evaluate.fill(parser)
    [action] = [each for each in parser._actions if "--threshold" in each.option_strings]
    assert ", ".join(map(str, THRESHOLDS)) in action.help


@pytest.mark.parametrize(
    ("flag", "word", "name", "value"),
    [
        ("--rate", "7", "rate", 7.0),
        ("--profile", "a10g", "profile", "a10g"),
        ("--window", "32768", "window", 32_768),
        ("--slo-ttft-ms", "500", "slo_ttft_ms", 500.0),
        ("--slo-tpot-ms", "20", "slo_tpot_ms", 20.0),
        ("--utilisation", "0.7", "utilisation", 0.7),
        ("--pools", "3", "pools", 3),
        ("--threshold", "4096", "thresholds", (4096,)),
        ("--slots", "occupancy", "slots", "occupancy"),
        ("--max-num-seqs", "64", "max_num_seqs", 64),
        ("--errors", "0,0", "errors", "0,0"),
        ("--hours", "1", "hours", 1.0),
        ("--price", "3", "price", 3.0),
    ],
)
def test_each_flag_of_a_plan_sets_its_option(run, flag, word, name, value):
    options = run(plan, flag, word)
    assert getattr(options, name) == value
    others = {field.name for field in fields(options)} - {name}
    default = PlanOptions(inputs=InputOptions())
    assert all(getattr(options, other) == getattr(default, other) for other in others)


def test_numbers_for_each_pool_are_separated_by_commas(run):
    fleet = run(simulate, "--window", "1,2", "--instances", "3,4", "--max-num-seqs", "5,6").fleet
    assert (fleet.windows, fleet.instances, fleet.max_num_seqs) == ((1, 2), (3, 4), (5, 6))


@pytest.mark.parametrize("word", ["1;2", "a", "1,"])
def test_other_lists_are_rejected(run, capsys, word):
    with pytest.raises(SystemExit):
        run(simulate, "--instances", word)
    assert "is not allowed: whole numbers, separated by commas" in capsys.readouterr().err


def test_a_comparison_runs_every_rule(run):
    assert run(simulate, "--compare").rules == COMPARED
    assert [rule.value for rule in run(simulate, "--rule", "oracle").rules] == ["oracle"]


def test_a_run_can_be_conducted_otherwise(run):
    conduct = run(simulate, "--choices", "3", "--no-retry", "--drain", "9").conduct
    assert (conduct.choices, conduct.retry, conduct.drain_s) == (3, False, 9.0)


@pytest.mark.parametrize("command", [plan, simulate, evaluate])
def test_the_settings_file_is_passed_on(run, command):
    assert run(command, "--config", "dualpool.yaml").config == Path("dualpool.yaml")
