"""The options of `dualpool plan` as its settings file completes them.

Imported with --config alone: settings and rules take as long to import as a plan takes.
"""

from dataclasses import replace
from pathlib import Path

from extproc.build import build_rules
from extproc.config.load import load_row
from extproc.config.settings import EstimatorName, Settings
from extproc.planner.sizing.estimators import CALIBRATED, PAPER, EstimatorErrors
from extproc.planner.sizing.question import PlanError
from extproc.planner_commands.options import PlanOptions


def configured(options: PlanOptions, file: Path) -> tuple[PlanOptions, EstimatorErrors]:
    """Return the options with the file's pools, and the errors of its estimator.

    Raises ConfigError, and PlanError for a flag that contradicts the file.
    """
    settings = load_row(file)
    is_paper = settings.budget.estimator is EstimatorName.PAPER
    return _with_pools(options, settings), PAPER if is_paper else CALIBRATED


def _with_pools(options: PlanOptions, settings: Settings) -> PlanOptions:
    """Return the options with the pools of the settings file, each sized up to its limit.

    Raises PlanError for a flag that contradicts the file.
    """
    *smaller, largest = build_rules(settings).pools
    window, limits = (largest.max_model_len,), tuple(pool.limit for pool in smaller)
    _check_agreement("--window", () if options.window is None else (options.window,), window)
    _check_agreement("--threshold", options.thresholds, limits)
    return replace(
        options,
        window=largest.max_model_len,
        thresholds=limits,
        names=tuple(pool.name for pool in (*smaller, largest)),
        pools=options.pools if limits else 1,
    )


def _check_agreement(flag: str, given: tuple[int, ...], settings: tuple[int, ...]) -> None:
    if given and given != settings:
        differ = " differs from the ".join(", ".join(map(str, each)) for each in (given, settings))
        raise PlanError(f"{flag}: {differ} of --config; give one of them")
