"""Decide for a request: from what was read of its body to its pool, budget and reason."""

import math
from dataclasses import dataclass, replace

from extproc.budget.category import content_class, named
from extproc.budget.features import add, measure, with_optional
from extproc.budget.learner import Learner
from extproc.budget.prior import prior_tokens, prior_total
from extproc.budget.values import Asked, Basis, Budget, Measure
from extproc.request.prompts import VIDEO_FRAMES, Prompt, Prompts
from extproc.request.reader import Request
from extproc.routing.pools import Decision, Pool, Reason, choose, limits

_MOST_UNSIZED = 256  # media of unknown size that are counted


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide a request."""

    pools: tuple[Pool, ...]
    """In ascending order of their windows."""
    category_header: str
    """The request header that names the category; empty: the content decides."""
    max_body_bytes: int
    """A larger body is not read."""
    usage_sample: float
    """Share of streams without usage that are asked for it after their category is calibrated."""

    responses_are_stored: bool = False
    """Whether the pools keep responses, so that all of them must come from one pool."""

    bytes_per_token: float = 2.0
    """A body with fewer bytes for each token of a pool's limit fits, if only its size is known."""

    def pool(self, name: str) -> Pool:
        """Return the pool of this name; there is one."""
        return next(pool for pool in self.pools if pool.name == name)


@dataclass(frozen=True, slots=True)
class Routed:
    """A decision, with what is needed to judge it and to learn from it once the answer is known."""

    pool: str
    reason: Reason
    asked: Asked
    budget: Budget
    retryable: bool = False
    """Whether a 400 of the pool may mean that the request is too long for it."""
    truncates: bool = False
    """Whether the pool may cut the prompt before it counts it."""


_NOTHING = Asked("", "", Measure(0), None), Budget(0, 0, 0, Basis.PRIOR)
"""What is known of a request that was not read."""


def ask(request: Request, category: str = "") -> Asked:
    """Build the estimator's view of a request; the default category is the class of its content."""
    largest = max(map(_measure, request.prompts.candidates), key=prior_total)
    whole = _whole(request.prompts)
    return Asked(
        model=request.model,
        category=category or content_class(largest.features).value,
        measure=largest,
        output_limit=request.max_tokens if request.generates else 0,
        sequences=request.sequences,
        whole=whole,
        share=min(prior_total(largest) / prior_total(whole), 1.0) if whole else 1.0,
    )


def route(request: Request, header: str, learner: Learner, rules: Rules) -> Routed:
    """Decide for a request that could be read; `header` is the value of the category header."""
    asked = ask(request, named(header) if rules.category_header else "")
    budgets = [learner.budget(asked, limit) for limit in limits(rules.pools)]
    decision = (
        Decision(rules.pools[-1], Reason.STATEFUL)
        if request.background or (request.stored and rules.responses_are_stored)
        else choose([budget.tokens for budget in budgets], rules.pools)
    )
    return Routed(
        pool=decision.pool.name,
        reason=decision.reason,
        asked=asked,
        budget=budgets[min(rules.pools.index(decision.pool), len(budgets) - 1)],
        retryable=decision.pool is not rules.pools[-1] and _may_exceed(request, decision.pool),
        truncates=request.truncates,
    )


def route_unread(rules: Rules) -> Routed:
    """Decide for a request that could not be read: the largest pool, and nothing to learn."""
    return Routed(rules.pools[-1].name, Reason.UNREADABLE, *_NOTHING)


def route_by_size(body_bytes: int | None, rules: Rules) -> Routed:
    """Decide by the length of the body alone, None if unknown: the smallest that should hold it.

    Envoy decides so while the service is away. A pool that cannot hold it refuses it, and Envoy
    retries it on the largest pool.
    """
    largest = rules.pools[-1]
    size = math.inf if body_bytes is None else body_bytes / rules.bytes_per_token
    pool = next((pool for pool in rules.pools if size < pool.limit), largest)
    return Routed(pool.name, Reason.BUSY, *_NOTHING, retryable=pool is not largest)


def _may_exceed(request: Request, pool: Pool) -> bool:
    """Return False only if the size of the body proves that every sequence fits the window."""
    bound = request.token_bound
    return bound is None or bound + (request.max_tokens or 0) > pool.max_model_len


def _whole(prompts: Prompts) -> Measure | None:
    """Measure all prompts together: what each has of its own, and the shared part for each."""
    if prompts.own is None or prompts.shared is None:
        return None
    shared = _measure(prompts.shared, prompts=0)
    return add(_measure(prompts.own, prompts.count), shared, prompts.count)


def _measure(prompt: Prompt, prompts: int = 1) -> Measure:
    found = measure(
        prompt.sample,
        prompt.text_bytes,
        prompts=prompts,
        messages=prompt.messages,
        tools=prompt.tools,
        images=_images(prompt),
    )
    optional = {
        kind.value: prior_tokens(text.sample, text.text_bytes)
        for kind, text in prompt.optional.items()
    }
    return with_optional(replace(found, token_ids=prompt.token_ids), optional)


def _images(prompt: Prompt) -> list[tuple[int, int]]:
    """Return width and height of all media; (0, 0) if unknown.

    Audio counts as one image of unknown size, a video as VIDEO_FRAMES of them.
    """
    unsized = min(prompt.audios + VIDEO_FRAMES * prompt.videos, _MOST_UNSIZED)
    return [(image.width, image.height) for image in prompt.images] + [(0, 0)] * unsized
