"""Build what decides and learns from the settings: the one place that knows both.

The service, the simulator of the planner and the evaluation all build their rule here, so that a
plan runs the operator's own settings.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict, assert_never

from extproc.budget.calibrated import Calibrated
from extproc.budget.category import REPLACED, Labels
from extproc.budget.learner import Learner
from extproc.budget.paper import PaperEstimator, PaperSettings
from extproc.budget.prior import MEASURED
from extproc.budget.rows import RowEstimators
from extproc.budget.values import Estimator
from extproc.config.errors import UserError
from extproc.config.keys import Fault, dotted
from extproc.config.settings import (
    ANY_MODEL,
    EstimatorName,
    ModelSettings,
    PoolSettings,
    Settings,
    StatedLimits,
    StickyBy,
    StoredResponses,
)
from extproc.routing.load.spill import Limits, Spill
from extproc.routing.models import ModelRule
from extproc.routing.pools import Pool, limits, thresholds
from extproc.routing.route import Rules
from extproc.routing.rows import Row
from extproc.routing.sticky import By, Naming
from extproc.routing.tenant import TenantKey
from extproc.tokenizer_file import TokenizerFileError, count_tokens, open_tokenizer


def build_rules(settings: Settings, tenant_secret: bytes = b"") -> Rules:
    """Return the rules that decide a request; the secret is that of all digests.

    Raises UserError if a tokenizer cannot be used.
    """
    for place, text in tokenizer_faults(settings):
        raise UserError(f"dualpool: {dotted(place)}: {text}")
    header = settings.tenants.header
    return Rules(
        pools=_pools(settings.pools),
        category_header=settings.categories.header,
        max_body_bytes=settings.requests.max_body_bytes,
        observe_sample=settings.requests.observe_sample,
        asks_usage=settings.requests.ask_usage and not settings.shadow,
        is_shadow=settings.shadow,
        limits_are_hints=settings.budget.stated_limits is StatedLimits.HINT,
        responses_are_stored=settings.requests.stored_responses is StoredResponses.LARGEST,
        prefix_key=tenant_secret if settings.budget.prefixes else None,
        sticky=_naming(settings, tenant_secret),
        tenants=TenantKey(header, tenant_secret) if header else None,
        models=tuple(
            ModelRule(m.name, m.max_pixels, m.image_tokens, frozenset(m.dropped), _counter(m))
            for m in settings.models
        ),
        count_bytes=settings.budget.count_bytes if any(m.tokenizer for m in settings.models) else 0,
        bytes_per_token=settings.envoy.fail_open_bytes_per_token,
        rows=_rows(settings),
    )


def tokenizer_faults(settings: Settings) -> Iterator[Fault]:
    """Yield the tokenizers of models that cannot be used, with the reason."""
    for index, model in enumerate(settings.models):
        try:
            _counter(model)
        except TokenizerFileError as error:
            yield ("models", index, "tokenizer"), str(error)


def _counter(model: ModelSettings) -> Callable[[str], int] | None:
    if not model.tokenizer:
        return None
    return partial(count_tokens, open_tokenizer(Path(model.tokenizer)))


def _pools(pools: Sequence[PoolSettings]) -> tuple[Pool, ...]:
    return tuple(Pool(pool.name, pool.max_model_len, pool.threshold) for pool in pools)


def _rows(settings: Settings) -> tuple[Row, ...]:
    """Return the rows; none if one row has every model."""
    if [ANY_MODEL in row.models for row in settings.fleet] == [True]:
        return ()
    return tuple(Row.of(row.models, _pools(row.pools)) for row in settings.rows)


def _naming(settings: Settings, secret: bytes) -> Naming | None:
    sticky = settings.sticky
    if sticky.by is StickyBy.NONE:
        return None
    by = By(sticky.by.value)
    return Naming(by, sticky.header if by is By.HEADER else "", secret)


def build_spill(
    settings: Settings,
    pools: Sequence[Pool],
    clock: Callable[[], float],
    draw: Callable[[], float],
) -> Spill:
    """Build what moves requests between pools by their load; the arguments are those of Spill."""
    load = settings.load
    return Spill(pools, Limits(load.wait_ms / 1000, load.stale_s), clock, draw)


def build_learner(
    settings: Settings, pools: Sequence[Pool] = (), name: EstimatorName | None = None
) -> Learner:
    """Build a learner that has learnt nothing; the arguments are those of build_estimator."""
    return Learner(build_estimator(settings, pools, name), Labels(*_labels(settings)))


def retune(learner: Learner, settings: Settings) -> None:
    """Let a learner go on under other settings.

    An estimator of another kind begins anew, and so does that of a row with another name.
    """
    rules, before = build_rules(settings), learner.estimator
    if rules.rows:
        known = before.rows if isinstance(before, RowEstimators) else {}
        rows = {row.name: _retuned(known.get(row.name), settings, row.pools) for row in rules.rows}
        learner.estimator = RowEstimators(rows, rules.row_number)
    else:
        learner.estimator = _retuned(before, settings, rules.pools)
    learner.relabel(*_labels(settings))


def _retuned(before: Estimator | None, settings: Settings, pools: Sequence[Pool]) -> Estimator:
    match before, settings.budget.estimator:
        case Calibrated() as calibrated, EstimatorName.CALIBRATED:
            calibrated.retune(limits(pools), thresholds(pools), **_calibrated(settings))
            return calibrated
        case PaperEstimator() as paper, EstimatorName.PAPER:
            paper.retune(**_paper(settings))
            return paper
        case _:
            return build_estimator(settings, pools)


def _labels(settings: Settings) -> tuple[int, float]:
    most = settings.categories.max
    # The files of the workers' metrics keep every label there ever was.
    return most, REPLACED * most if settings.workers > 1 else math.inf


def build_estimator(
    settings: Settings, pools: Sequence[Pool] = (), name: EstimatorName | None = None
) -> Estimator:
    """Build an estimator that has learnt nothing.

    Without `pools` (in ascending order) it is for the pools of the settings, of each row apart, and
    without `name` it is the estimator of the settings.
    """
    if not pools:
        rules = build_rules(settings)
        if rules.rows:
            rows = {row.name: build_estimator(settings, row.pools, name) for row in rules.rows}
            return RowEstimators(rows, rules.row_number)
        pools = rules.pools
    match name or settings.budget.estimator:
        case EstimatorName.CALIBRATED:
            return Calibrated(MEASURED, limits(pools), thresholds(pools), **_calibrated(settings))
        case EstimatorName.PAPER:
            return PaperEstimator(**_paper(settings))
        case unknown:
            assert_never(unknown)


class _CalibratedSettings(TypedDict):
    target: float
    categories: int
    tenants: int
    models: int
    prefixes: int


def _calibrated(settings: Settings) -> _CalibratedSettings:
    return {
        "target": settings.budget.target,
        "categories": settings.categories.max,
        "tenants": settings.tenants.max,
        "models": settings.categories.models,
        "prefixes": settings.budget.prefixes,
    }


def _paper(settings: Settings) -> PaperSettings:
    budget = settings.budget
    return {
        "beta": budget.beta,
        "gamma": budget.gamma,
        "prior_bytes_per_token": budget.prior_bytes_per_token,
        "default_output_tokens": budget.default_output_tokens,
        "categories": settings.categories.max,
    }
