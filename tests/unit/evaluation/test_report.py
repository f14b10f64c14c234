"""Tables, bars and the picture."""

from pathlib import Path

import pytest
from rich.console import Console

from extproc.evaluation.cpu import Cost
from extproc.evaluation.plot import draw_plot
from extproc.evaluation.poison import Effect
from extproc.evaluation.report import Evaluation, print_effects, print_evaluation
from extproc.evaluation.rivals import OURS
from extproc.evaluation.scores import EstimatorResult, Score


def score(misrouted: float = 0.05, over_routed: float = 1.5) -> Score:
    return Score(
        requests=1000,
        misrouted=misrouted,
        over_routed=over_routed,
        early_misrouted=0.0,
        early_over_routed=0.1,
        under=4.0,
        median_error=1.25,
        p99_error=9.0,
        p99_near=6.5,
        calibrated_after=7,
    )


def result(tokenizer: str, estimator: str, found: Score) -> EstimatorResult:
    return EstimatorResult(
        tokenizer=tokenizer,
        estimator=estimator,
        threshold=2048,
        score=found,
        classes={"english": found, "base64": score(0.4, 3.0)},
        curve={0: 19.0, 50: 1.25},
    )


EVALUATION = Evaluation(
    classes=("base64", "english"),
    tokenizers=("t1", "t2"),
    requests=1000,
    seed=0,
    stated=0.85,
    target=0.1,
    reserved=1024,
    results=(
        result("t1", "paper", score(0.5, 10)),
        result("t1", OURS, score()),
        result("t2", OURS, score(0.07, 1.7)),
    ),
    costs=(Cost(estimator=OURS, prompt_bytes=4096, estimate=55, dearest=70,
                dearest_class="base64", observation=60),),
)  # fmt: skip


@pytest.fixture
def console():
    return Console(width=110, force_terminal=False)


def lines(console: Console, by_class: bool = True) -> list[list[str]]:
    with console.capture() as capture:
        print_evaluation(console, EVALUATION, by_class=by_class)
    return [line.split() for line in capture.get().splitlines()]


def test_an_estimator_has_the_mean_over_the_tokenizers_and_the_worst(console):
    row = [OURS, "0.060", "(0.070)", "1.60", "(1.70)", "0.000", "/", "0.10", "4.0", "1.2", "(1.2)",
           "9", "6.5", "7"]  # fmt: skip
    assert row in lines(console)


def test_classes_are_shown_where_they_are_asked_for(console):
    row = ["base64", "0.400", "/", "3.00", "1.2", "9"]
    assert row in lines(console)
    assert row not in lines(console, by_class=False)


def test_costs_name_the_dearest_class(console):
    assert [OURS, "4096", "55", "70", "(base64)", "60"] in lines(console)


def test_effects_are_shown_before_and_after(console):
    effect = Effect(attack="1 % lie", estimator=OURS, before=score(), after=score(0.2, 2.5))
    with console.capture() as capture:
        print_effects(console, [effect])
    row = "1 % lie 1.25 -> 1.25 9.0 -> 9.0 0.1 -> 0.2 1.5 -> 2.5".split()  # noqa: SIM905
    assert row in [line.split() for line in capture.get().splitlines()]


def test_the_picture_is_a_png(tmp_path: Path):
    draw_plot(EVALUATION, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
