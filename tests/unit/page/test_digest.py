"""What one process tells the page."""

from prometheus_client import CollectorRegistry

from extproc.budget.learner import Learner
from extproc.build import build_learner
from extproc.config.settings import Settings
from extproc.page.decisions import Decisions
from extproc.service.build import build_reporter, build_stages


def test_a_digest_has_the_counters_by_the_names_of_their_metrics():
    settings = Settings()
    learner: Learner = build_learner(settings)
    stages = build_stages(settings, learner, learner.learn, CollectorRegistry(), b"")
    metrics = stages.metrics
    metrics.verdicts.labels("short", "right").inc()
    metrics.misroutes.labels("short", "refused").inc(2)
    metrics.retries.labels("short", "failed").inc(3)
    metrics.answers.labels("learnt").inc(4)
    metrics.streams_ended.labels("fault").inc(5)
    metrics.unread.inc(6)
    metrics.decision_seconds.observe(0.0003)
    digest = build_reporter(stages, Decisions()).digest()
    assert {key: value for key, value in digest.counts.items() if "seconds" not in key} == {
        "dualpool_verdicts_total short right": 1,
        "dualpool_misroutes_total short refused": 2,
        "dualpool_retries_total short failed": 3,
        "dualpool_answers_total learnt": 4,
        "dualpool_streams_total fault": 5,
        "dualpool_unread_requests_total": 6,
    }
    assert digest.counts["dualpool_decision_seconds_bucket 0.0005"] == 1
