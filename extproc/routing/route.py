"""Decide for a request: from what was read of its body to its pool, budget and reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from extproc.budget.category import escape_reserved, named
from extproc.budget.estimate import Basis, Budget
from extproc.budget.values import Asked, Measure, Recalled
from extproc.request.reader import Request
from extproc.routing.ask import ask
from extproc.routing.counting import countable, counted
from extproc.routing.load.spill import Spill
from extproc.routing.models import ModelRule, find_rule
from extproc.routing.pools import Decision, Pool, Reason, choose, limits
from extproc.routing.resume import Trail, find_trail, resume
from extproc.routing.rows import Row
from extproc.routing.sticky import By, Naming, StickyPools, stay
from extproc.routing.tenant import TenantKey


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide a request."""

    pools: tuple[Pool, ...]
    """Of every model, in ascending order of their windows; or those of all rows."""
    category_header: str
    """The request header that names the category; empty: the content decides."""
    max_body_bytes: int
    """A larger body is not read."""
    observe_sample: float
    """The least share of requests whose answers are observed though they tell little; above 0."""

    bytes_per_token: float
    """A body with fewer bytes for each token of a pool's limit fits, if only its size is known."""

    asks_usage: bool = True
    """Whether observed streams without usage are asked for it."""

    is_shadow: bool = False
    """Whether nothing is routed: the largest pool answers, whatever is decided."""

    responses_are_stored: bool = False
    """Whether the pools keep responses, so that all of them must come from one pool."""

    limits_are_hints: bool = False
    """Whether the output that a request is expected to have counts, not the limit it states."""

    tenants: TenantKey | None = None
    """How requests name their tenant; None: tenants are not told apart."""

    prefix_key: bytes | None = field(default=None, repr=False)
    """The secret of the digests of prompts' beginnings; None: none are remembered."""

    models: tuple[ModelRule, ...] = ()
    """What is known of models; the first whose pattern matches a name counts."""

    count_bytes: int = 0
    """The longest text that a model's own tokenizer counts."""

    sticky: Naming | None = None
    """How conversations are told that stay in a pool; None: each request is decided by itself."""

    rows: tuple[Row, ...] = ()
    """The pools of each model; none: `pools` are those of every model."""

    def row(self, model: str) -> tuple[Pool, ...]:
        """Return the pools that have a model; none if no row names it."""
        if not self.rows:
            return self.pools
        index = self.row_number(model)
        return () if index is None else self.rows[index].pools

    def row_number(self, model: str) -> int | None:
        """Return the number of the row that has a model; the first has what is not named."""
        for number, row in enumerate(self.rows):
            if row.has(model):
                return number
        return None if model else 0

    @property
    def reads_turns(self) -> bool:
        """Whether the beginnings of conversations are told."""
        return self.prefix_key is not None or self._tells_by_messages

    @property
    def _tells_by_messages(self) -> bool:
        return self.sticky is not None and self.sticky.by is By.MESSAGES

    def trail(self, request: Request, asked: Asked) -> Trail | None:
        """Return the beginnings of a prompt that was read with its turns, if they are told."""
        key = self.sticky.key if self.sticky and self._tells_by_messages else self.prefix_key
        return find_trail(request, asked, key, self.models) if key is not None else None

    @property
    def each_row(self) -> tuple[tuple[Pool, ...], ...]:
        """The pools of each row."""
        return tuple(row.pools for row in self.rows) or (self.pools,)

    def pool(self, name: str) -> Pool:
        """Return the pool of this name; there is one."""
        return next(pool for pool in self.pools if pool.name == name)


class Routed(msgspec.Struct, frozen=True, gc=False):
    """A decision, and what it is based on."""

    pool: str
    """Empty: Envoy chooses it, as without the service."""
    reason: Reason
    asked: Asked
    budget: Budget
    row: tuple[Pool, ...] = ()
    """The pools that have its model; none if it is not known which."""
    retryable: bool = False
    """Whether a 400 of the pool may mean that the request is too long for it."""
    truncates: bool = False
    """Whether the pool may cut the prompt before it counts it."""
    home: str = ""
    """The pool that the budget alone chooses, if the load moved the request to another one."""


class Moving(msgspec.Struct, frozen=True, gc=False):
    """What takes a request to another pool than its budget's.

    spill: the load does, but for conversations that have a pool. sticky_pools: those of
    conversations. session: the value of the header that names this one's.
    """

    spill: Spill | None = None
    sticky_pools: StickyPools | None = None
    session: str = ""

    def decide(
        self, home: Decision, budget: Budget, pools: Sequence[Pool], names: Sequence[str]
    ) -> Decision:
        """Return the decision for a request of the conversation of these names; see Naming."""
        decision, spill, sticky = home, self.spill, self.sticky_pools
        pool = sticky.find(names) if sticky is not None else ""
        if pool and not (spill and spill.is_down(pool)):
            decision = stay(home, budget, pools, pool)
        elif spill is not None:
            decision = spill.move(home, budget, pools)
        if sticky is not None and names:
            sticky.keep(names[0], decision.pool.name)
        return decision


_NOTHING_MOVES = Moving()
_NO_BUDGET = Budget(0, 0, 0, Basis.PRIOR)
_NOTHING = Asked("", "", Measure(0), None), _NO_BUDGET
"""What is known of a request that was not read."""


class Estimating(Protocol):
    """What routing asks of a learner."""

    def budget(self, asked: Asked) -> Budget:
        """Return the budget of a request."""

    def weigh(self, model: str, tenant: str, measure: Measure) -> float:
        """Return the tokens that a prompt, or several together, are expected to have; above 0."""

    def recall(self, digest: str) -> Recalled | None:
        """Return what is known of the beginning of a prompt, if it was seen before."""


def route(
    request: Request,
    header: str,
    learner: Estimating,
    rules: Rules,
    tenant: str = "",
    *,
    moving: Moving = _NOTHING_MOVES,
) -> Routed:
    """Decide for a request that could be read.

    `header` is the value of the category header, `tenant` the digest of the tenant, empty if
    tenants are not told apart. `moving` may take a request to another pool of its row.
    """
    pools = rules.row(escape_reserved(request.model)) if rules.rows else rules.pools
    if not pools:
        asked = Asked(escape_reserved(request.model), "", Measure(0), None)
        return Routed("", Reason.UNLISTED, asked, _NO_BUDGET)
    category = named(header) if rules.category_header else ""
    hints = rules.limits_are_hints
    asked = ask(request, category, tenant, rules.models, learner.weigh, limit_is_hint=hints)
    trail = rules.trail(request, asked) if rules.reads_turns else None
    names = rules.sticky.names(request, asked, moving.session, trail) if rules.sticky else ()
    if trail and rules.prefix_key is not None:
        asked = resume(asked, trail, learner.recall)
    budget = learner.budget(asked)
    if rules.count_bytes and is_undecided(budget, pools):
        count = find_rule(request.model, rules.models).count
        if count and (texts := countable(request, asked, rules.count_bytes)):
            asked = counted(asked, texts, count)
            budget = learner.budget(asked)
    home = (
        Decision(pools[-1], Reason.STATEFUL)
        if request.background or (request.stored and rules.responses_are_stored)
        else choose(budget, pools)
    )
    decision = moving.decide(home, budget, pools, names)
    return Routed(
        pool=decision.pool.name,
        reason=decision.reason,
        asked=asked,
        budget=budget,
        row=pools,
        retryable=decision.pool is not pools[-1] and may_exceed(request, decision.pool),
        truncates=request.truncates,
        home="" if decision is home else home.pool.name,
    )


def is_informative(budget: Budget, pools: Sequence[Pool]) -> bool:
    """Return whether the answer to a request tells something that those to others do not."""
    return budget.basis is not Basis.CALIBRATED or is_open(budget, pools)


def is_open(budget: Budget, pools: Sequence[Pool]) -> bool:
    """Return whether a request may or may not exceed some window."""
    return any(map(budget.is_near, limits(pools)))


def is_undecided(budget: Budget, pools: Sequence[Pool]) -> bool:
    """Return whether the exact tokens of a prompt may choose another pool than their estimate."""
    return any(map(budget.may_fit, limits(pools)))


def route_unread(rules: Rules) -> Routed:
    """Decide for a request that could not be read: the largest pool, and nothing to learn.

    Which row has its model is not known: Envoy may still find its name.
    """
    return Routed("" if rules.rows else rules.pools[-1].name, Reason.UNREADABLE, *_NOTHING)


def route_by_size(body_bytes: int | None, rules: Rules) -> Routed:
    """Decide by the length of the body alone, None if unknown: the smallest that should hold it.

    Envoy decides so while the service is away. A pool that cannot hold it refuses it, and Envoy
    retries it on the largest pool. With rows it decides itself, once it has the model's name.
    """
    if rules.rows:
        return Routed("", Reason.BUSY, *_NOTHING)
    largest = rules.pools[-1]
    size = math.inf if body_bytes is None else body_bytes / rules.bytes_per_token
    pool = next((pool for pool in rules.pools if size < pool.limit), largest)
    return Routed(pool.name, Reason.BUSY, *_NOTHING, retryable=pool is not largest)


def may_exceed(request: Request, pool: Pool) -> bool:
    """Return False only if the size of the body proves that every sequence fits the window."""
    bound = request.token_bound
    # A pool that cannot hold the least output refuses it; one above the limit is refused by all.
    output = request.min_tokens if request.max_tokens is None else request.max_tokens
    return bound is None or bound + output > pool.max_model_len
