"""What the report says of fleets of several accelerators."""

import io
from dataclasses import replace

from rich.console import Console

from extproc.planner.proof.hardware import Hardware
from extproc.planner.report.hardware import advise, hardware_json, print_hardware
from tests.support.planning_cases import A100, ask
from tests.unit.planner.report.test_tails import ONE, SHAPE, SPLIT

OTHER = replace(SHAPE, profile=replace(A100, name="other", gpus=1, price_per_gpu_h=1.0))
MIXED = replace(SPLIT, name="other + a100", shapes=(OTHER, SHAPE))
FOUND = Hardware(
    question=ask(hours_per_year=100),
    threshold=8192,
    requests=1000,
    tried=4,
    rows=(MIXED, ONE),
    dearer=("h100, one pool",),
)


def test_a_mix_that_is_cheaper_is_recommended_with_its_saving():
    assert advise(FOUND) == (
        "Buy other + a100 (1 + 2 instances, $542 a year), 38.7% less than the best of one "
        "accelerator: one pool (4 instances, $884 a year)."
    )


def test_a_mix_alone_may_hold():
    assert "no fleet of one accelerator" in advise(replace(FOUND, rows=(MIXED,)))


def test_one_accelerator_that_is_cheaper_is_recommended():
    cheap = replace(ONE, instances=(1,))
    text = advise(replace(FOUND, rows=(cheap, MIXED)))
    assert text.startswith("Do not mix accelerators: buy one pool (1 instances")
    assert "The cheapest mix is other + a100" in text
    assert "mix is" not in advise(replace(FOUND, rows=(cheap,)))


def test_no_fleet_may_hold():
    assert advise(replace(FOUND, rows=())).startswith("No fleet that was tried holds")


def test_the_recommendation_is_the_first_line_and_the_dearer_are_named():
    for found, named in ((FOUND, True), (replace(FOUND, dearer=()), False)):
        out = io.StringIO()
        print_hardware(Console(file=out, width=110), found, ("a note",))
        text = " ".join(out.getvalue().split())
        assert text.startswith(advise(found))
        assert ("h100, one pool." in text) is named
        assert "Note: a note." in text


def test_json_has_the_fleets_and_their_cost():
    document = hardware_json(FOUND)
    assert document["advice"] == advise(FOUND)
    assert [fleet["mixed"] for fleet in document["fleets"]] == [True, False]
