"""From a request that was read to its decision, and the decision's way to whoever sees the answer.

The routing filter's stream ends with the decision; another stream, perhaps in another process, sees
the answer. The record travels between them in Envoy's dynamic metadata, as one JSON text: metadata
itself knows only doubles.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from extproc.budget import Basis, Budget, Measure
from extproc.category import by_content, by_header
from extproc.learner import Learner
from extproc.pools import Pool, Reason, choose
from extproc.request import Request

_KEY = "routed"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator set, as far as it decides a request."""

    pools: tuple[Pool, ...]
    """In ascending order of their windows."""
    category_header: str
    """The request header that names the category; empty: content and model do."""
    default_output_tokens: int
    """Reserved for each sequence of a request that states no limit."""
    max_body_bytes: int
    """A larger body is not read."""


@dataclass(frozen=True, slots=True)
class Routed:
    """A decision with what is needed to judge it, and to learn from it, once the answer is here."""

    pool: str
    reason: Reason
    category: str
    measure: Measure
    budget: Budget
    max_tokens: int = 0
    """The output limit that the client stated for one sequence, in tokens; 0 where none."""
    sequences: int = 1


def route(request: Request, named: str, learner: Learner, rules: Rules) -> Routed:
    """Decide for a request that could be read; `named` is the value of the category header."""
    measure = Measure(request.text_bytes, request.token_ids)
    category = (
        by_header(named) if rules.category_header else by_content(request.sample, request.model)
    )
    budget = learner.budget(category, measure, output_reserve(request, rules))
    decision = choose(budget.tokens, rules.pools)
    return Routed(
        pool=decision.pool.name,
        reason=decision.reason,
        category=category,
        measure=measure,
        budget=budget,
        max_tokens=request.max_tokens or 0,
        sequences=request.sequences,
    )


def route_unread(rules: Rules) -> Routed:
    """Decide for a request that could not be read: the largest pool, and nothing to learn."""
    nothing = Budget(0, 0, Basis.PRIOR)
    return Routed(rules.pools[-1].name, Reason.UNREADABLE, "", Measure(0), nothing)


def output_reserve(request: Request, rules: Rules) -> int:
    """Tokens reserved for the output of all sequences: the stated limit, or the default."""
    if not request.generates:
        return 0
    each = rules.default_output_tokens if request.max_tokens is None else request.max_tokens
    return each * request.sequences


_DECODER = msgspec.json.Decoder(Routed)


def to_note(routed: Routed) -> dict[str, str]:
    """Return the record as metadata."""
    return {_KEY: msgspec.json.encode(routed).decode()}


def from_note(note: Mapping[str, str | float | bool]) -> Routed | None:
    """Return the record, or None where the routing filter left none that can be read."""
    try:
        return _DECODER.decode(str(note.get(_KEY, "")))
    except msgspec.DecodeError:
        return None
