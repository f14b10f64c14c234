"""An exchange whose stages are told to a trace, for the requests that are sampled."""

from typing import Protocol

from extproc.budget.estimate import Budget
from extproc.budget.values import Asked, Measure, Recalled
from extproc.request.reader import Request
from extproc.response.reader import Refused, Unlearnable, Usage
from extproc.routing.pools import Pool
from extproc.routing.route import Estimating, Routed
from extproc.stream.decision import Noted
from extproc.stream.exchange import Exchange, PendingRequest, RetryCause
from extproc.stream.session import Proceed
from extproc.stream.stages import Stages


class Trace(Protocol):
    """What happens to one request, or to its answer. Nothing here may raise."""

    def step(self, name: str) -> None:
        """Begin a step of a decision; the step under way ends, unless it has this name."""

    def decided(self, routed: Routed) -> None:
        """End the decision."""

    def learning(self) -> None:
        """Begin to learn from an answer."""

    def learnt(self, pool: str, outcome: Usage | Refused | Unlearnable) -> None:
        """End learning from an answer of this pool."""


class TracedExchange(Exchange):
    """An exchange that tells a trace: read, estimate, choose; and later, learn."""

    __slots__ = ("_trace",)

    def __init__(self, stages: Stages, trace: Trace) -> None:
        super().__init__(stages)
        self._trace = trace

    def _read_body(self, pending: PendingRequest) -> Request:
        self._trace.step("read")
        return super()._read_body(pending)

    def _choose_plain(self, pending: PendingRequest, request: Request) -> Proceed:
        return self._choose(pending, request)  # step by step

    def _route(self, pending: PendingRequest, request: Request, learner: Estimating) -> Routed:
        self._trace.step("estimate")
        return super()._route(pending, request, _Telling(learner, self._trace))

    def _go(self, routed: Routed, noted: Noted | None = None) -> Proceed:
        action = super()._go(routed, noted)
        self._trace.decided(routed)
        return action

    def _conclude(
        self, noted: Noted, pool: Pool, outcome: Usage | Refused | Unlearnable
    ) -> RetryCause:
        self._trace.learning()
        cause = super()._conclude(noted, pool, outcome)
        self._trace.learnt(pool.name, outcome)
        return cause


class _Telling:
    """A learner that tells the trace when it has returned a budget: the choice of a pool begins."""

    def __init__(self, learner: Estimating, trace: Trace) -> None:
        self._learner, self._trace = learner, trace

    def budget(self, asked: Asked) -> Budget:
        budget = self._learner.budget(asked)
        self._trace.step("choose")
        return budget

    def weigh(self, model: str, tenant: str, measure: Measure) -> float:
        return self._learner.weigh(model, tenant, measure)

    def recall(self, digest: str) -> Recalled | None:
        return self._learner.recall(digest)
