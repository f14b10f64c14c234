"""`python -m benchmarks.page_cost`: what the page costs a service, as a share of one core.

It measures each part on its own, with many categories learnt, and multiplies it by how often it
runs: on every decision, every two seconds, and for a browser that looks.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry

from extproc.budget.values import Learnt, Observation, Outcome
from extproc.build import build_learner, build_rules
from extproc.config.settings import Settings
from extproc.page.decisions import Decisions
from extproc.page.digest import EVERY_S
from extproc.page.history import STEP_S
from extproc.page.learnt import describe_learnt
from extproc.request.reader import Endpoint, read_request
from extproc.routing.route import Routed, route
from extproc.service.build import build_reporter, build_stages
from extproc.service.build_page import build_page
from extproc.stream.metrics import WorkerMetrics

_LEARNT_EVERY_S: Final = 5.0  # the least; the service waits longer if it takes long
_NOTES: Final = 300_000
_TEXTS: Final = ("Where do owls sleep at noon? ", "1, 22, 333; ", "夜の梟はどこ ", "ночью совы ")


@dataclass(frozen=True, slots=True)
class _Part:
    """One part of the work: how long it takes, and how often it runs."""

    name: str
    us: float
    per_s: float

    @property
    def share(self) -> float:
        """The part of a core."""
        return self.us * self.per_s / 1e6


def _us(work: Callable[[], object], times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times * 1e6


def _measure(categories: int, per_s: float) -> list[_Part]:
    settings = Settings.model_validate({"categories": {"max": max(2, categories)}})
    learner, decisions = build_learner(settings), Decisions()
    registry = CollectorRegistry()
    stages = build_stages(settings, learner, learner.learn, registry, b"", decisions.note)
    reporter = build_reporter(stages, decisions)
    overview = build_page(settings, learner, WorkerMetrics(registry)).overview
    rules = build_rules(settings)
    routed: Routed | None = None
    for i in range(categories):
        text = _TEXTS[i % len(_TEXTS)] * 10
        body = json.dumps({"model": f"m{i // len(_TEXTS)}", "prompt": text, "max_tokens": 20})
        request = read_request(Endpoint.COMPLETION, body.encode(), max_bytes=1 << 20)
        routed = route(request, "", learner, rules)
        learner.learn(Observation(routed.asked, Outcome.COMPLETE, 8192, 90, 20))
    assert routed is not None  # noqa: S101 - for the type
    last = routed
    for _ in range(361):  # an hour
        overview.tell(0, reporter.digest())
        overview._history.add(time.time(), overview._counts())  # noqa: SLF001

    def report() -> None:
        overview.tell(0, reporter.digest())
        overview.tick()

    def learnt() -> bytes:
        return msgspec.json.encode(describe_learnt(Learnt.merged(learner.learnt_parts())))

    count = len(learner.learnt().categories)
    noting = _us(lambda: decisions.note(last.pool, last.reason, lambda: last), _NOTES)
    note = noting - _us(lambda: None, _NOTES)
    return [
        _Part("a decision is counted", note, per_s),
        _Part("a process reports", _us(report, 200), 1 / EVERY_S),
        _Part("figures of the moment", _us(lambda: msgspec.json.encode(overview.now()), 200), 0.5),
        _Part("the last hour", _us(lambda: msgspec.json.encode(overview.hour()), 50), 1 / STEP_S),
        _Part(f"{count} categories learnt", _us(learnt, 20), 1 / _LEARNT_EVERY_S),
    ]


def main() -> int:
    """Print the parts; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--categories", type=int, default=1000, metavar="N")
    parser.add_argument("--decisions", type=float, default=10_000, metavar="PER_S")
    given = parser.parse_args()
    parts = _measure(given.categories, given.decisions)
    for part in parts:
        line = f"{part.name:24} {part.us:9.2f} us  x {part.per_s:8.1f}/s = {100 * part.share:.3f} %"
        sys.stdout.write(line + "\n")
    always, watched = sum(p.share for p in parts[:2]), sum(p.share for p in parts)
    sys.stdout.write(f"of a core: {100 * always:.2f} %, with one browser {100 * watched:.2f} %\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
