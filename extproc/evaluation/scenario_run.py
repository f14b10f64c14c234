"""`dualpool evaluate --scenarios`: serve every scenario on every tokenizer, on all cores."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, dataclass, replace
from functools import cache
from multiprocessing import get_context
from statistics import fmean
from typing import Final

from msgspec import structs

from extproc.budget.values import Estimator
from extproc.build import build_estimator, build_rules
from extproc.config.load import load_row
from extproc.config.settings import EstimatorName, Settings
from extproc.evaluation.cases import TEMPLATES, Case, Template
from extproc.evaluation.chat_template import ChatTemplate, find_chat_template
from extproc.evaluation.conditions import Model, make_cases
from extproc.evaluation.options import EvaluateOptions, EvaluationError
from extproc.evaluation.priming import prime
from extproc.evaluation.rivals import Exact, Served
from extproc.evaluation.scenarios import SCENARIOS, Scenario, select
from extproc.evaluation.serving import Conditions, ServedRow, serve
from extproc.evaluation.texts import read_texts
from extproc.evaluation.tokenizer import load_tokenizers
from extproc.progress import Show
from extproc.routing.pools import Verdict

_FORECASTS: Final = 60
"""How often the forecast is read in the second half of a scenario."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fared:
    """How many requests fared how."""

    requests: int = 0
    misrouted: int = 0
    over_routed: int = 0
    near: int = 0
    near_misrouted: int = 0
    long: int = 0
    long_misrouted: int = 0
    reserved: int = 0
    seen: int = 0
    """The requests that the answers which the service saw stand for."""
    counted: int = 0
    """Of these, the ones that it counts as misrouted."""

    def __add__(self, other: "Fared") -> "Fared":
        sums = map(sum, zip(astuple(self), astuple(other), strict=True))
        return Fared(**dict(zip(self.__slots__, sums, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioResult:
    """A scenario, or the part of it that is reported on its own, on one tokenizer."""

    scenario: str
    part: str
    """Which of its requests; empty: all."""
    tokenizer: str
    target: float
    """The share of requests that may be misrouted."""
    ours: Fared
    exact: Fared
    forecast: float | None
    """The mean share of misrouted requests that the service forecasts in the second half; None if
    the part has none of it."""
    later: Fared
    """The requests of the second half, of which the forecast is."""


@dataclass(frozen=True, slots=True)
class _Task:
    """Scenarios that share their requests, by their names, on one tokenizer."""

    options: EvaluateOptions
    settings: Settings
    names: frozenset[str]
    tokenizer: int


def run_scenarios(options: EvaluateOptions, show: Show) -> tuple[ScenarioResult, ...]:
    """Serve the scenarios that the options name. Raises EvaluationError if there are none."""
    chosen = select(options.scenarios or "")
    if not chosen:
        raise EvaluationError(f"--scenarios: none has {options.scenarios!r} in its name")
    tasks = _tasks(options, chosen)
    show.begin("Serving scenarios", len(tasks))
    found: list[ScenarioResult] = []
    for results in _finished(tasks):
        found += results
        show.advance()
    order = {scenario.name: place for place, scenario in enumerate(chosen)}
    return tuple(sorted(found, key=lambda each: (order[each.scenario], each.tokenizer)))


def _tasks(options: EvaluateOptions, chosen: Sequence[Scenario]) -> list[_Task]:
    groups: dict[object, list[Scenario]] = {}
    for scenario in chosen:
        groups.setdefault((scenario.phases, scenario.requests), []).append(scenario)
    settings, tokenizers = load_row(options.config), range(len(load_tokenizers(options.tokenizers)))
    tasks = [
        _Task(options, settings, names, i)
        for group in groups.values()
        for i in tokenizers
        if (names := frozenset(s.name for s in group if not s.renders or _template(options, i)))
    ]
    # The longest first, so that no core idles at the end.
    return sorted(tasks, key=lambda task: -len(task.names))


def _template(options: EvaluateOptions, index: int) -> ChatTemplate | None:
    """Return the chat template of a tokenizer; those that are built in have none."""
    files = options.tokenizers
    return find_chat_template(files[index % len(files)]) if files else None


def skipped(options: EvaluateOptions, results: Sequence[ScenarioResult]) -> tuple[str, ...]:
    """Return the chosen scenarios that no tokenizer could serve."""
    served = {result.scenario for result in results}
    return tuple(s.name for s in select(options.scenarios or "") if s.name not in served)


def _finished(tasks: Sequence[_Task]) -> Iterator[list[ScenarioResult]]:
    workers = min(os.cpu_count() or 1, len(tasks))
    if workers <= 1:
        yield from map(_serve_task, tasks)
        return
    # Not forked: the display of the progress has a thread.
    with ProcessPoolExecutor(workers, get_context("spawn")) as executor:
        for future in as_completed([executor.submit(_serve_task, task) for task in tasks]):
            yield future.result()


def _serve_task(task: _Task) -> list[ScenarioResult]:
    options, scenarios = task.options, [s for s in SCENARIOS if s.name in task.names]
    # The second model is for scenarios with two.
    models = [_model(options, task.tokenizer + more) for more in range(2)]
    count, seed = options.requests or scenarios[0].requests, f"{options.seed}-{task.tokenizer}"
    cases = list(make_cases(scenarios[0].phases, models, count, seed))
    return [
        result
        for scenario in scenarios
        for result in serve_scenario(
            scenario,
            scenario.over(task.settings),
            list(scenario.named(cases, seed)),
            models[0].name,
            models[0].count_once,
            models[0].template,
        )
    ]


@cache
def _model(options: EvaluateOptions, index: int) -> Model:
    tokenizers = load_tokenizers(options.tokenizers)
    tokenizer = tokenizers[index % len(tokenizers)]()
    texts = read_texts(options.texts, options.seed)
    template = TEMPLATES[index % len(TEMPLATES)]
    return Model(tokenizer, template, texts, _template(options, index))


def serve_scenario(
    scenario: Scenario,
    settings: Settings,
    cases: Sequence[Case],
    tokenizer: str,
    count: Callable[[str], int] = len,
    template: Template = TEMPLATES[0],
) -> list[ScenarioResult]:
    """Serve the cases by our estimator and by an exact tokenizer, under the scenario's settings.

    `count` is the tokenizer itself, which the service has in some scenarios, and asks its servers
    for in those that are primed; `template` is what their chat template adds.
    """
    rules = build_rules(settings)
    if rules.limits_are_hints:
        cases = [
            replace(case, asked=structs.replace(case.asked, limit_is_hint=True)) for case in cases
        ]
    conditions = Conditions(
        pools=rules.pools,
        observe_sample=rules.observe_sample,
        lag=scenario.lag,
        count=count if scenario.counts else None,
        count_bytes=settings.budget.count_bytes,
    )
    estimator = build_estimator(settings, name=EstimatorName.CALIBRATED)
    recall = estimator.recall if settings.budget.prefixes else None
    if scenario.primed:
        prime(estimator, {case.asked.model for case in cases}, count, template)
    exact = Exact(build_estimator(settings, name=EstimatorName.CALIBRATED))
    forecasts, ours = _forecasted(
        serve(cases, Served(estimator), conditions, recall), estimator, len(cases)
    )
    known = list(serve(cases, exact, conditions))
    return [
        ScenarioResult(
            scenario=scenario.name,
            part=part,
            tokenizer=tokenizer,
            target=settings.budget.target,
            ours=count_rows(ours[rows]),
            exact=count_rows(known[rows]),
            forecast=None if rows.stop else fmean(forecasts),
            later=count_rows(ours[len(ours) // 2 :]),
        )
        for part, rows in _parts(scenario.apart)
    ]


def _parts(apart: int) -> list[tuple[str, slice]]:
    if not apart:
        return [("", slice(0, None))]
    return [(f"first {apart}", slice(0, apart)), (f"after {apart}", slice(apart, None))]


def _forecasted(
    served: Iterable[ServedRow], estimator: Estimator, count: int
) -> tuple[list[float], list[ServedRow]]:
    """Return the forecasts of the second half beside the rows."""
    rows, forecasts, every = [], [], max(1, count // 2 // _FORECASTS)
    for number, row in enumerate(served):
        rows.append(row)
        if number >= count // 2 and number % every == 0:
            forecasts.append(_forecast(estimator))
    return forecasts, rows


def _forecast(estimator: Estimator) -> float:
    found = estimator.learnt().limits.values()
    return sum(float(figures["misroute_forecast"]) for figures in found)


def count_rows(rows: Sequence[ServedRow]) -> Fared:
    """Count the rows."""
    misrouted = [row for row in rows if row.verdict is Verdict.MISROUTED]
    return Fared(
        requests=len(rows),
        misrouted=len(misrouted),
        over_routed=sum(row.verdict is Verdict.OVER_ROUTED for row in rows),
        near=sum(row.is_near for row in rows),
        near_misrouted=sum(row.is_near for row in misrouted),
        long=sum(row.is_long for row in rows),
        long_misrouted=sum(row.is_long for row in misrouted),
        reserved=sum(row.verdict is Verdict.RESERVED for row in rows),
        seen=sum(row.weight for row in rows),
        counted=sum(row.weight for row in rows if row.is_counted),
    )
