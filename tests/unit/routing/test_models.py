"""Which rule holds for a model."""

import pytest

from extproc.routing.models import ModelRule, find_rule

RULES = (ModelRule("gemma-3-4b", image_tokens=1), ModelRule("gemma-?-*"), ModelRule("Qwen/*VL*"))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gemma-3-4b", "gemma-3-4b"),
        ("gemma-3-27b", "gemma-?-*"),
        ("Qwen/Qwen3-VL-8B", "Qwen/*VL*"),
        ("qwen/Qwen3-VL-8B", "*"),
        ("my-gemma-3-4b", "*"),
        ("", "*"),
    ],
)
def test_the_first_rule_whose_pattern_is_the_whole_name_holds(model, name):
    assert find_rule(model, RULES).name == name


def test_without_rules_nothing_is_known():
    assert find_rule("m", ()) == ModelRule("*", 0, 0, frozenset())
