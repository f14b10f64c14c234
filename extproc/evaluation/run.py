"""`dualpool evaluate`: read texts and tokenizers, replay, report."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
from rich.console import Console

from extproc.build import build_rules
from extproc.config.load import load_row
from extproc.config.settings import Settings
from extproc.evaluation.cases import TEMPLATES, Case, Reader, Template, read_cases
from extproc.evaluation.cpu import Cost, measure_costs
from extproc.evaluation.lengths import Draw, read_lengths
from extproc.evaluation.options import (
    REQUESTS,
    THRESHOLDS,
    EvaluateOptions,
    EvaluationError,
    check_options,
    check_packages,
)
from extproc.evaluation.poison import REQUESTS as POISON_REQUESTS
from extproc.evaluation.poison import TENANT_ATTACKS, Effect, keyed, make_attacks, strike
from extproc.evaluation.predicted import run_predicted
from extproc.evaluation.predicted_report import print_predicted
from extproc.evaluation.replay import LONG_POOL, replay
from extproc.evaluation.report import Evaluation, print_effects, print_evaluation
from extproc.evaluation.requests import Writer, write_cases
from extproc.evaluation.rivals import OURS, PAPER, PEER, Rivals, make_rivals
from extproc.evaluation.scenario_report import print_scenarios
from extproc.evaluation.scenario_run import run_scenarios, skipped
from extproc.evaluation.scores import EstimatorResult, error_curve, score_classes, score_rows
from extproc.evaluation.serving import Conditions, Observed
from extproc.evaluation.texts import Text, read_bodies, read_texts
from extproc.evaluation.tokenizer import TextTokenizer, load_tokenizers, tokenize
from extproc.output import STDOUT, wide_console, write_json
from extproc.progress import Show, showing
from extproc.routing.pools import Pool

_POISONED: Final = (PAPER, PEER, OURS)
_COST_CASES: Final = 500
_PARTS: Final = 10  # progress steps of making the requests of a tokenizer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Inputs:
    settings: Settings
    thresholds: tuple[int, ...]
    texts: tuple[Text, ...]
    bodies: tuple[dict[str, object], ...]
    draw: Draw
    tokenizers: tuple[Callable[[], TextTokenizer], ...]


@dataclass(frozen=True, slots=True)
class _Made:
    """The requests of one tokenizer."""

    tokenizer: TextTokenizer
    template: Template
    cases: tuple[Case, ...]


def run_evaluate(options: EvaluateOptions) -> int:
    """Evaluate, print the tables and write the files; return the exit code.

    Raises UserError for wrong options or inputs, and OSError if a file cannot be written.
    """
    check_options(options)
    check_packages(options)
    if options.scenarios is not None:
        return _scenarios(options)
    if options.outputs:
        return _outputs(options)
    inputs = _read(options)
    with showing(Console(stderr=True)) as show:
        found = _poison(options, inputs, show) if options.poison else None
        evaluation = None if found else _evaluate(options, inputs, show)
    if found and options.json != STDOUT:
        print_effects(wide_console(), found)
    if evaluation:
        if options.json != STDOUT:
            print_evaluation(wide_console(), evaluation, by_class=options.by_class)
        _plot(options, evaluation)
    _write(options, found or evaluation)
    return 0


def _scenarios(options: EvaluateOptions) -> int:
    with showing(Console(stderr=True)) as show:
        found = run_scenarios(options, show)
    if options.json != STDOUT:
        print_scenarios(wide_console(), found, skipped(options, found))
    _write(options, found)
    return 0


def _outputs(options: EvaluateOptions) -> int:
    settings = load_row(options.config)
    with showing(Console(stderr=True)) as show:
        thresholds = _thresholds(options, settings)
        found = run_predicted(options, thresholds, settings.budget.target, show)
    if options.json != STDOUT:
        print_predicted(wide_console(), found)
    _write(options, found)
    return 0


def _thresholds(options: EvaluateOptions, settings: Settings) -> tuple[int, ...]:
    pools = build_rules(settings).pools
    own = tuple(p.limit for p in pools[:-1] or pools) if options.config else THRESHOLDS
    return options.thresholds or own


def _write(options: EvaluateOptions, found: object) -> None:
    if options.json:
        write_json(options.json, msgspec.json.format(msgspec.json.encode(found)).decode())


def _read(options: EvaluateOptions) -> _Inputs:
    settings, given = load_row(options.config), options.texts
    bodies = read_bodies(given, options.requests or REQUESTS) if given and given.is_file() else ()
    return _Inputs(
        settings=settings,
        thresholds=_thresholds(options, settings),
        texts=read_texts(None if bodies else given, options.seed),
        bodies=bodies,
        draw=read_lengths(options.lengths),
        tokenizers=load_tokenizers(options.tokenizers),
    )


def _evaluate(options: EvaluateOptions, inputs: _Inputs, show: Show) -> Evaluation:
    rivals, settings = make_rivals(inputs.settings), inputs.settings
    steps = _PARTS + len(rivals) * len(inputs.thresholds)
    show.begin("Replaying", steps * len(inputs.tokenizers))
    results: list[EstimatorResult] = []
    costs: tuple[Cost, ...] = ()
    for index in range(len(inputs.tokenizers)):
        made = _make(options, inputs, index, show)
        results += _replay_all(made, rivals, inputs.thresholds, show)
        costs = costs or measure_costs(
            settings, inputs.texts, made.tokenizer, made.cases[:_COST_CASES]
        )
    return Evaluation(
        classes=tuple(sorted({kind for result in results for kind in result.classes})),
        tokenizers=tuple(dict.fromkeys(result.tokenizer for result in results)),
        requests=len(made.cases),
        seed=options.seed,
        stated=options.stated,
        target=100 * settings.budget.target,
        reserved=settings.budget.default_output_tokens,
        results=tuple(results),
        costs=costs,
    )


def _make(options: EvaluateOptions, inputs: _Inputs, index: int, show: Show) -> _Made:
    tokenizer = inputs.tokenizers[index]()
    template = TEMPLATES[index % len(TEMPLATES)]
    count = POISON_REQUESTS if options.poison else options.requests or REQUESTS
    seed = f"{options.seed}-{index}"
    if inputs.bodies:
        cases = read_cases(inputs.bodies, tokenizer, template, inputs.draw, seed)
    else:
        texts = tokenize(tokenizer, inputs.texts)
        writer = Writer(texts, tokenizer, template, stated=options.stated)
        cases = write_cases(writer, Reader(tokenizer.name), inputs.draw, count, seed)
    made = tuple(_shown(cases, count, show))
    if not made:
        raise EvaluationError("--texts: no request in the file can be read")
    return _Made(tokenizer, template, made)


def _shown(cases: Iterable[T], count: int, show: Show) -> Iterator[T]:
    done = 0
    for number, case in enumerate(cases, 1):
        yield case
        while done < number * _PARTS // count:
            show.advance()
            done += 1
    # Requests that cannot be read make fewer cases than `count`.
    for _ in range(done, _PARTS):
        show.advance()


def _replay_all(
    made: _Made, rivals: Rivals, thresholds: Iterable[int], show: Show
) -> Iterator[EstimatorResult]:
    for threshold in thresholds:
        for name, build in rivals.items():
            rows = replay(made.cases, build(threshold), threshold)
            show.advance()
            yield EstimatorResult(
                tokenizer=made.tokenizer.name,
                estimator=name,
                threshold=threshold,
                score=score_rows(rows),
                classes=score_classes(rows),
                curve=error_curve(rows),
            )


def _poison(options: EvaluateOptions, inputs: _Inputs, show: Show) -> tuple[Effect, ...]:
    if inputs.bodies:
        raise EvaluationError("--poison: needs a folder of texts, not a file of requests")
    rivals, threshold, seed = make_rivals(inputs.settings), inputs.thresholds[0], options.seed
    show.begin("Requests", _PARTS)
    made = _make(options, inputs, 0, show)
    attacks = make_attacks(made.tokenizer, made.template)
    show.begin("Attacking", len(_POISONED) * (1 + len(attacks)) + 1 + len(TENANT_ATTACKS))
    apart = tuple(keyed(case, "others") for case in made.cases)
    by_key = {f"{attack}, by key": teach for attack, teach in TENANT_ATTACKS.items()}
    effects = []
    conditions = Conditions(
        pools=(Pool("short", threshold, threshold), LONG_POOL),
        observe_sample=inputs.settings.requests.observe_sample,
    )
    for name, cases, tried in (
        *((name, made.cases, attacks) for name in _POISONED),
        (OURS, apart, by_key),
    ):
        before = strike(cases, Observed(rivals[name](threshold), conditions), None, threshold, seed)
        show.advance()
        for attack, teach in tried.items():
            rival = Observed(rivals[name](threshold), conditions)
            after = strike(cases, rival, teach, threshold, seed)
            effects.append(Effect(attack=attack, estimator=name, before=before, after=after))
            show.advance()
    return tuple(effects)


def _plot(options: EvaluateOptions, evaluation: Evaluation) -> None:
    if options.plot:
        # Imported here: matplotlib is optional.
        importlib.import_module("extproc.evaluation.plot").draw_plot(evaluation, options.plot)
