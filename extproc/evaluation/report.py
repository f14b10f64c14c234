"""Report an evaluation as tables and bars for a terminal."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from extproc.evaluation.cpu import Cost
from extproc.evaluation.poison import Effect
from extproc.evaluation.rivals import OURS
from extproc.evaluation.scores import EstimatorResult, Score

OVER_ROUTED_TARGET: Final = 2.0
"""Per cent of all requests, at most; the target for misrouted requests is a setting."""
ERROR_TARGET: Final = 3.0
"""Median error in per cent, at most."""
_BAR: Final = 24
_LEAST, _MOST = 0.01, 100.0  # per cent, the ends of the logarithmic scale of the bars

_LEGEND: Final = """\
Shares in per cent of all requests, errors in per cent of the prompt's true tokens; mean over
the tokenizers (worst). first 50: misrouted / over-routed in the first 50 observations of each
category, which the other columns exclude; under: budgets below the tokens needed; after:
observations until the error is within 5 %; near: P99 of those that need 0.8 to 1.25 times the
threshold. For a request without an output limit, static and
paper reserve {reserved} tokens, the nearest peer none, the exact tokenizer as many as ours.
"""

Value = Callable[[Score], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All figures of a run.

    requests: per tokenizer. target: per cent that may be misrouted. reserved: output tokens that
    the paper's rule reserves if no limit is stated.
    """

    classes: tuple[str, ...]
    tokenizers: tuple[str, ...]
    requests: int
    seed: int
    stated: float
    target: float
    reserved: int
    results: tuple[EstimatorResult, ...]
    costs: tuple[Cost, ...]

    @property
    def thresholds(self) -> tuple[int, ...]:
        """In the order of the options."""
        return tuple(dict.fromkeys(result.threshold for result in self.results))

    @property
    def estimators(self) -> tuple[str, ...]:
        """In the order of the replays."""
        return tuple(dict.fromkeys(result.estimator for result in self.results))

    def of(self, estimator: str, threshold: int) -> tuple[EstimatorResult, ...]:
        """Return an estimator's results at a threshold, one per tokenizer."""
        return tuple(
            result
            for result in self.results
            if (result.estimator, result.threshold) == (estimator, threshold)
        )


def print_evaluation(console: Console, evaluation: Evaluation, *, by_class: bool) -> None:
    """Print the comparison, error curves, ours by tokenizer and by class, and the costs."""
    console.print(_heading(evaluation), highlight=False, soft_wrap=True)
    for threshold in evaluation.thresholds:
        console.print(_comparison(evaluation, threshold))
    console.print(_chart(evaluation))
    console.print(_curves(evaluation))
    console.print(_tokenizers(evaluation))
    if by_class:
        console.print(_classes(evaluation))
    console.print(_costs(evaluation.costs))


def print_effects(console: Console, effects: Sequence[Effect]) -> None:
    """Print the effect of each attack on the next thousand estimates."""
    ours = [effect for effect in effects if effect.estimator == OURS]
    console.print(_effects(ours))
    console.print(_rival_effects([effect for effect in effects if effect.estimator != OURS]))


def _heading(evaluation: Evaluation) -> str:
    return (
        f"{len(evaluation.classes)} classes of text x {len(evaluation.tokenizers)} tokenizers x"
        f" {evaluation.requests} requests, {evaluation.stated:.0%} of them with an output limit,"
        f" seed {evaluation.seed}.\n{_LEGEND.format(reserved=evaluation.reserved)}"
    )


def _comparison(evaluation: Evaluation, threshold: int) -> Table:
    table = _table(
        f"Threshold {threshold} tokens",
        ("misrouted", "over-routed", "first 50", "under", "error", "P99", "near", "after"),
    )
    for name in evaluation.estimators:
        scores = [result.score for result in evaluation.of(name, threshold)]
        table.add_row(
            name,
            _pair(scores, lambda s: s.misrouted, 3),
            _pair(scores, lambda s: s.over_routed, 2),
            _both(scores, lambda s: s.early_misrouted, lambda s: s.early_over_routed),
            f"{fmean(score.under for score in scores):.1f}",
            _pair(scores, lambda s: s.median_error, 1),
            f"{fmean(score.p99_error for score in scores):.0f}",
            f"{fmean(score.p99_near for score in scores):.1f}",
            _samples(scores),
            style="bold" if name == OURS else "",
        )
    return table


def _tokenizers(evaluation: Evaluation) -> Table:
    columns = [f"{at}: mis / over" for at in evaluation.thresholds]
    table = _table(f"{OURS}, by tokenizer", (*columns, "error", "P99"))
    for name in evaluation.tokenizers:
        results = [r for r in evaluation.results if (r.tokenizer, r.estimator) == (name, OURS)]
        _add_scores(table, name, [result.score for result in results], evaluation.target)
    return table


def _classes(evaluation: Evaluation) -> Table:
    columns = [f"{at}: mis / over" for at in evaluation.thresholds]
    table = _table(
        f"{OURS}, by class, all tokenizers: per cent of the requests of the class",
        (*columns, "error", "P99"),
    )
    for kind in evaluation.classes:
        scores = [
            _mean([each.classes[kind] for each in evaluation.of(OURS, at) if kind in each.classes])
            for at in evaluation.thresholds
        ]
        _add_scores(table, kind, scores, evaluation.target)
    return table


def _add_scores(table: Table, name: str, scores: Sequence[Score], target: float) -> None:
    shares = [f"{score.misrouted:.3f} / {score.over_routed:.2f}" for score in scores]
    missed = any(_misses(score, target) for score in scores)
    errors = f"{scores[0].median_error:.1f}", f"{scores[0].p99_error:.0f}"
    table.add_row(name, *shares, *errors, style="yellow" if missed else "")


def _misses(score: Score, target: float) -> bool:
    return (
        score.misrouted > target
        or score.over_routed > OVER_ROUTED_TARGET
        or score.median_error > ERROR_TARGET
    )


def _mean(scores: Sequence[Score]) -> Score:
    return Score(
        requests=sum(score.requests for score in scores),
        misrouted=fmean(score.misrouted for score in scores),
        over_routed=fmean(score.over_routed for score in scores),
        early_misrouted=fmean(score.early_misrouted for score in scores),
        early_over_routed=fmean(score.early_over_routed for score in scores),
        under=fmean(score.under for score in scores),
        median_error=fmean(score.median_error for score in scores),
        p99_error=fmean(score.p99_error for score in scores),
        p99_near=fmean(score.p99_near for score in scores),
        calibrated_after=None,
    )


def _curves(evaluation: Evaluation) -> Table:
    at = evaluation.thresholds[0]
    results = {name: evaluation.of(name, at) for name in evaluation.estimators}
    steps = sorted({step for each in results.values() for result in each for step in result.curve})
    columns = [str(step) for step in steps]
    table = _table("Median error by observations of the category, from", columns)
    for name, found in results.items():
        table.add_row(name, *(_at_step(found, step) for step in steps))
    return table


def _at_step(results: Sequence[EstimatorResult], step: int) -> str:
    values = [result.curve[step] for result in results if step in result.curve]
    return f"{fmean(values):.1f}" if values else ""


def _chart(evaluation: Evaluation) -> Table:
    title = "Shares of all requests, 0.01 to 100 %, logarithmic"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in ("threshold", "estimator", "misrouted", "over-routed"):
        table.add_column(name, no_wrap=True)
    for threshold in evaluation.thresholds:
        for name in evaluation.estimators:
            score = _mean([result.score for result in evaluation.of(name, threshold)])
            bars = _bar(score.misrouted), _bar(score.over_routed)
            table.add_row(str(threshold), name, *bars, style="bold" if name == OURS else "")
        table.add_section()
    return table


def _bar(share: float) -> str:
    span = math.log(_MOST / _LEAST)
    length = round(_BAR * math.log(max(share, _LEAST) / _LEAST) / span)
    return "\u2588" * length + f" {share:.2f}"


def _costs(costs: Iterable[Cost]) -> Table:
    columns = ("prompt bytes", "estimate", "slowest class", "observation")
    table = _table("Microseconds of CPU, including reading the JSON", columns)
    for cost in costs:
        table.add_row(
            cost.estimator,
            str(cost.prompt_bytes),
            f"{cost.estimate:.0f}",
            f"{cost.dearest:.0f} ({cost.dearest_class})",
            f"{cost.observation:.0f}" if cost.observation else "",
        )
    return table


def _effects(effects: Iterable[Effect]) -> Table:
    columns = ("median error", "P99 error", "misrouted", "over-routed")
    table = _table(f"{OURS}: the next 1,000 estimates, before -> after, in per cent", columns)
    for effect in effects:
        table.add_row(
            effect.attack,
            _change(effect, lambda s: s.median_error, 2),
            _change(effect, lambda s: s.p99_error, 1),
            _change(effect, lambda s: s.misrouted, 1),
            _change(effect, lambda s: s.over_routed, 1),
        )
    return table


def _rival_effects(effects: Sequence[Effect]) -> Table:
    names = list(dict.fromkeys(effect.estimator for effect in effects))
    columns = [f"{name}: {part}" for name in names for part in ("median", "P99")]
    table = _table("Other estimators: error of the next 1,000 estimates, before -> after", columns)
    for attack in dict.fromkeys(effect.attack for effect in effects):
        cells: list[str] = []
        for effect in effects:
            if effect.attack == attack:
                cells.append(_change(effect, lambda s: s.median_error, 1))
                cells.append(_change(effect, lambda s: s.p99_error, 0))
        table.add_row(attack, *cells)
    return table


def _change(effect: Effect, value: Value, digits: int) -> str:
    return f"{value(effect.before):.{digits}f} -> {value(effect.after):.{digits}f}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _pair(scores: Sequence[Score], value: Value, digits: int) -> str:
    values = [value(score) for score in scores]
    mean, worst = f"{fmean(values):.{digits}f}", f"{max(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({worst})"


def _both(scores: Sequence[Score], first: Value, second: Value) -> str:
    return f"{fmean(map(first, scores)):.3f} / {fmean(map(second, scores)):.2f}"


def _samples(scores: Sequence[Score]) -> str:
    after = [score.calibrated_after for score in scores if score.calibrated_after is not None]
    return f"{median(after):.0f}" if len(after) * 2 > len(scores) else "never"
