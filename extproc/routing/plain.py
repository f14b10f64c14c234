"""Decide in one step for one prompt of plain text, as most are.

Invariant: what is decided is what `route` decides for the same request. Where more than the counts
of its text decides, that is left to `route`.
"""

from typing import Self

from extproc.budget.calibrated import Calibrated
from extproc.budget.category import escape_reserved, named
from extproc.budget.estimate import Basis, Budget
from extproc.budget.learner import Learner, full_name
from extproc.budget.plain_text import TextCounter
from extproc.budget.values import Asked, Measure
from extproc.frozen import Frozen
from extproc.request.reader import Request, Thinking
from extproc.routing.pools import Pool, Reason, choose, limits
from extproc.routing.route import Routed, Rules, is_undecided, may_exceed


class PlainRouted(Frozen, frozen=True):
    """A decision; all that it is based on is collected only where somebody asks for it."""

    pool: Pool
    reason: Reason
    budget: Budget
    model: str
    category: str
    retryable: bool
    is_informative: bool
    """See `route.is_informative`."""

    @property
    def category_name(self) -> str:
        """The full name of its category."""
        return full_name(self.category, self.model)


class PlainRouter:
    """Decides by rules under which the text alone decides."""

    def __init__(self, rules: Rules) -> None:
        self._rules, self._windows = rules, limits(rules.pools)
        self._counter = TextCounter()

    @classmethod
    def of(cls, rules: Rules) -> Self | None:
        """Return the router of these rules; None if more than the text decides."""
        more = rules.rows or rules.tenants or rules.sticky or rules.prefix_key is not None
        return None if more else cls(rules)

    def decide(self, request: Request, header: str, learner: Learner) -> PlainRouted | None:
        """Decide for a request; None if that is left to `route`, whose arguments these are."""
        rules, estimator = self._rules, learner.estimator
        if not isinstance(estimator, Calibrated) or not _is_plain(request):
            return None
        if request.stored and rules.responses_are_stored:
            return None
        prompt, counter = request.prompts.candidates[0], self._counter
        content = counter.count(
            prompt.sample, prompt.text_bytes, messages=prompt.messages, tools=prompt.tools
        )
        model = escape_reserved(request.model)
        category = named(header) if rules.category_header else content._value_
        outlook = estimator.outlook(model, category)
        features, unseen = counter.features, counter.unseen
        limit = request.max_tokens if request.generates else 0
        if limit is None or (limit and rules.limits_are_hints):
            form = request.form.value
            budget = outlook.expected(features, unseen, request.min_tokens, limit, form)
        else:
            budget = outlook.reserved(features, unseen, limit)
        if rules.count_bytes and is_undecided(budget, rules.pools):
            return None  # a tokenizer may count it
        decision = choose(budget, rules.pools)
        pool = decision.pool
        return PlainRouted(
            pool,
            decision.reason,
            budget,
            model,
            category,
            pool is not rules.pools[-1] and may_exceed(request, pool),
            outlook.basis is not Basis.CALIBRATED or self._is_open(budget),
        )

    def collect(self, request: Request, found: PlainRouted) -> Routed:
        """Return all of the decision for the last request."""
        text_bytes, counter = request.prompts.largest.text_bytes, self._counter
        features = tuple(counter.features.tolist())
        asked = Asked(
            model=found.model,
            category=found.category,
            measure=Measure(text_bytes, features=features, unseen=counter.unseen),
            output_limit=request.output_limit,
            output_floor=request.min_tokens,
            form=request.form.value,
            limit_is_hint=self._rules.limits_are_hints,
        )
        return Routed(
            pool=found.pool.name,
            reason=found.reason,
            asked=asked,
            budget=found.budget,
            row=self._rules.pools,
            retryable=found.retryable,
        )

    def _is_open(self, budget: Budget) -> bool:
        for window in self._windows:  # noqa: SIM110 - a generator would take five times as long
            if budget.is_near(window):
                return True
        return False


def _is_plain(request: Request) -> bool:
    """Return whether a request is one prompt with nothing but text."""
    prompt = request.prompts.candidates[0]
    return not (
        request.prompts.count > 1
        or request.outputs > 1
        or prompt.token_ids
        or prompt.images
        or prompt.audios
        or prompt.videos
        or prompt.optional
        or request.truncates
        or request.background
        or request.thinking is not Thinking.UNSTATED
    )
