"""Build the page from the settings, where it is served: a worker needs none of this."""

from collections.abc import Callable, Mapping

from extproc.budget.learner import Learner
from extproc.build import build_rules
from extproc.config.settings import EstimatorName, Settings
from extproc.page.counts import read_counts
from extproc.page.overview import Facts, Overview
from extproc.service.explain import explain_by
from extproc.service.page_routes import Explain, Page
from extproc.stream.metrics import WorkerMetrics


def build_page(
    settings: Settings,
    learner: Learner,
    workers: WorkerMetrics,
    seen: Callable[[], Mapping[str, Mapping[str, object]]] = dict,
) -> Page:
    """Build the page of a service whose processes tell its overview; `seen` is Overview's."""

    def count_workers() -> Mapping[str, float]:
        counted = workers.configured, workers.ready, workers.restarts, workers.reloads
        return read_counts(counted)

    overview = Overview(_facts(settings), count_workers, seen=seen)
    return Page(overview, _explain(settings, learner))


def renew_page(page: Page, settings: Settings, learner: Learner) -> None:
    """Let a page show other settings."""
    page.overview.facts = _facts(settings)
    page.explain = _explain(settings, learner)


def _facts(settings: Settings) -> Facts:
    estimator = settings.budget.estimator
    target = settings.budget.target if estimator is EstimatorName.CALIBRATED else 0.0
    return Facts(estimator.value, target, build_rules(settings).each_row)


def _explain(settings: Settings, learner: Learner) -> Explain:
    rules = build_rules(settings)
    return lambda body, kind: explain_by(body, kind, rules, learner)
