"""From a request that was read to its decision, and the decision's way to whoever sees the answer.

The routing filter's stream ends with the decision; another stream, perhaps in another process, sees
the answer. The record travels between them in Envoy's dynamic metadata, as one JSON text: metadata
itself knows only doubles.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from extproc.budget.category import content_class, named, printable
from extproc.budget.features import FEATURES, measure
from extproc.budget.learner import Learner
from extproc.budget.values import Asked, Basis, Budget, Measure
from extproc.request.reader import Request
from extproc.routing.pools import Pool, Reason, choose, limits

_KEY = "routed"
_VIDEO_FRAMES = 16
_TEMPLATE_TOKENS = 512  # more than any chat template that was seen adds around all messages
_ENTRY_TOKENS = 32  # and around each message or tool


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator set, as far as it decides a request."""

    pools: tuple[Pool, ...]
    """In ascending order of their windows."""
    category_header: str
    """The request header that names the category; empty: the content does."""
    max_body_bytes: int
    """A larger body is not read."""
    usage_sample: float
    """Of the streams that tell no usage, the share that is asked for it once there is no need."""

    def pool(self, name: str) -> Pool:
        """Return the pool of this name; there is one."""
        return next(pool for pool in self.pools if pool.name == name)


@dataclass(frozen=True, slots=True)
class Routed:
    """A decision with what is needed to judge it, and to learn from it, once the answer is here."""

    pool: str
    reason: Reason
    asked: Asked
    budget: Budget
    max_tokens: int = 0
    """The output limit that the client stated for one sequence, in tokens; 0 where none."""
    sequences: int = 1
    refusable: bool = False
    """Whether a 400 of its pool may mean that it is too long for it."""


def ask(request: Request, category: str = "") -> Asked:
    """Take of a request what estimators want; without a category, the content's class is it."""
    found = _measure(request)
    return Asked(
        model=printable(request.model),
        category=category or content_class(found.features).value,
        measure=found,
        output_limit=_output_limit(request),
    )


def route(request: Request, header: str, learner: Learner, rules: Rules) -> Routed:
    """Decide for a request that could be read; `header` is the value of the category header."""
    asked = ask(request, named(header) if rules.category_header else "")
    budgets = [learner.budget(asked, limit) for limit in limits(rules.pools)]
    decision = choose([budget.tokens for budget in budgets], rules.pools)
    return Routed(
        pool=decision.pool.name,
        reason=decision.reason,
        asked=asked,
        budget=budgets[min(rules.pools.index(decision.pool), len(budgets) - 1)],
        max_tokens=request.max_tokens or 0,
        sequences=request.sequences,
        refusable=decision.pool is not rules.pools[-1] and _refusable(request, decision.pool),
    )


def _refusable(request: Request, pool: Pool) -> bool:
    """Tell whether the pool could find the request too long.

    It could not where its bytes prove the contrary, since no token of a text has less than a byte.
    """
    if request.images or request.audios or request.videos:
        return True
    entries = request.messages + request.tools
    prompt = request.text_bytes + request.token_ids + _TEMPLATE_TOKENS + _ENTRY_TOKENS * entries
    return prompt + (request.max_tokens or 0) > pool.max_model_len


def route_unread(rules: Rules) -> Routed:
    """Decide for a request that could not be read: the largest pool, and nothing to learn."""
    nothing = Asked("", "", Measure(0), None)
    return Routed(rules.pools[-1].name, Reason.UNREADABLE, nothing, Budget(0, 0, 0, Basis.PRIOR))


def _measure(request: Request) -> Measure:
    return measure(
        request.sample,
        request.text_bytes,
        messages=request.messages,
        tools=request.tools,
        images=_images(request),
        token_ids=request.token_ids,
    )


def _images(request: Request) -> list[tuple[int, int]]:
    """Return width and height of what is seen and heard; what is not known is (0, 0).

    A sound is reserved what an image of unknown size is, a video that of so many frames.
    """
    unknown = request.audios + _VIDEO_FRAMES * request.videos
    return [(image.width, image.height) for image in request.images] + [(0, 0)] * min(unknown, 256)


def _output_limit(request: Request) -> int | None:
    if not request.generates:
        return 0
    return request.max_tokens


_DECODER = msgspec.json.Decoder(Routed)


def to_note(routed: Routed) -> dict[str, str]:
    """Return the record as metadata."""
    return {_KEY: msgspec.json.encode(routed).decode()}


def from_note(note: Mapping[str, str | float | bool], rules: Rules) -> Routed | None:
    """Return the record, or None where the routing filter left none of ours that can be read."""
    try:
        routed = _DECODER.decode(str(note.get(_KEY, "")))
    except msgspec.DecodeError:
        return None
    whole = len(routed.asked.measure.features) == len(FEATURES) and routed.sequences > 0
    return routed if whole and any(pool.name == routed.pool for pool in rules.pools) else None
