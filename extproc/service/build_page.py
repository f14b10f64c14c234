"""Build the page from the settings, where it is served: a worker needs none of this."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from extproc.budget.learner import Learner
from extproc.build import build_rules
from extproc.config.settings import EstimatorName, Settings
from extproc.page.counts import read_counts
from extproc.page.overview import Around, Facts, Overview
from extproc.service.explain import explain_by
from extproc.service.page_routes import Explain, Page
from extproc.service.pool_watch import PoolWatch
from extproc.service.state_file import StateFile
from extproc.stream.metrics import WorkerMetrics

if TYPE_CHECKING:
    from extproc.service.shared_state import SharedState


def build_page(
    settings: Settings,
    learner: Learner,
    workers: WorkerMetrics,
    watch: PoolWatch | None = None,
    kept: "StateFile | SharedState | None" = None,
) -> Page:
    """Build the page of a service whose processes tell its overview."""
    counted = [workers.configured, workers.ready, workers.restarts, workers.reloads]
    if kept:
        counted.append(kept.saves)

    def count() -> Mapping[str, float]:
        return {**read_counts(counted), **(watch.counts() if watch else {})}

    around = Around(count, watch.seen if watch else dict, kept.describe if kept else dict)
    return Page(Overview(_facts(settings), around), _explain(settings, learner))


def renew_page(page: Page, settings: Settings, learner: Learner) -> None:
    """Let a page show other settings."""
    page.overview.facts = _facts(settings)
    page.explain = _explain(settings, learner)


def _facts(settings: Settings) -> Facts:
    estimator = settings.budget.estimator
    target = settings.budget.target if estimator is EstimatorName.CALIBRATED else 0.0
    return Facts(estimator.value, target, build_rules(settings).each_row, settings.shadow)


def _explain(settings: Settings, learner: Learner) -> Explain:
    rules = build_rules(settings)
    return lambda body, kind: explain_by(body, kind, rules, learner)
