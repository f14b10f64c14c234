"""What is said of a decision: headers for Envoy's routes, and a note for the observing stream.

The stream of the routing filter ends with the decision; the answer is seen by another stream, which
may run in another process. The record travels between them in Envoy's dynamic metadata, as one JSON
text: metadata itself knows only doubles.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import msgspec

from extproc.budget.category import NAME_CHARS, label
from extproc.budget.features import FEATURES
from extproc.budget.learner import name_category
from extproc.budget.values import Budget, Measure
from extproc.names import (
    BASIS_HEADER,
    BUDGET_HEADER,
    CATEGORY_HEADER,
    POOL_HEADER,
    REASON_HEADER,
    RETRYABLE_HEADER,
)
from extproc.request.reader import MAX_MODEL_CHARS
from extproc.request.thinking import Thinking
from extproc.routing.route import Routed, Rules
from extproc.routing.tenant import DIGEST_CHARS
from extproc.stream.sampling import MOST as MOST_STOOD_FOR
from extproc.stream.usage_asking import UsageForm

USAGE_REQUEST: Final = b'"stream_options":{"include_usage":true},'

_KEY: Final = "routed"
_USAGE_KEY: Final = "usage"
_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_MOST_NOTE_CHARS: Final = 32_768  # more than twice the longest that this service writes
_MOST_COUNT: Final = 1 << 48
_DECODER: Final = msgspec.json.Decoder(Routed)


def decision_headers(routed: Routed) -> dict[str, str]:
    """Return the request headers that carry a decision; all values are printable ASCII."""
    headers = {POOL_HEADER: routed.pool, REASON_HEADER: routed.reason.value}
    if routed.retryable:
        headers[RETRYABLE_HEADER] = "1"
    if routed.reason.is_read:
        headers[BUDGET_HEADER] = str(routed.budget.tokens)
        headers[CATEGORY_HEADER] = _quoted(label(name_category(routed.asked)))
        headers[BASIS_HEADER] = routed.budget.basis.value
    return headers


@lru_cache(1024)
def _quoted(name: str) -> str:
    return quote(name, safe=_PRINTABLE)


def to_note(routed: Routed) -> dict[str, str]:
    """Return the record as metadata."""
    return {_KEY: msgspec.json.encode(routed).decode()}


def from_note(note: Mapping[str, str | float | bool], rules: Rules) -> Routed | None:
    """Return the record, or None if the note holds none that this service can have written."""
    text = str(note.get(_KEY, ""))
    if len(text) > _MOST_NOTE_CHARS:
        return None
    try:
        routed = _DECODER.decode(text)
    except msgspec.DecodeError:
        return None
    return routed if _is_sound(routed, rules) else None


def usage_note(form: UsageForm) -> dict[str, str]:
    """Return what was done about the usage of a request as metadata."""
    return {_USAGE_KEY: form.value}


def usage_from_note(note: Mapping[str, str | float | bool]) -> UsageForm:
    """Return what was done; OTHER if the note does not tell."""
    told = note.get(_USAGE_KEY)
    return next((form for form in UsageForm if form.value == told), UsageForm.OTHER)


def ask_for_usage(body: bytes) -> bytes:
    """Insert `stream_options` as the first field of a body; every other byte stays.

    The body is a non-empty JSON object without a field of that name.
    """
    start = body.index(b"{") + 1
    return body[:start] + USAGE_REQUEST + body[start:]


def _is_sound(routed: Routed, rules: Rules) -> bool:
    asked = routed.asked
    return (
        all(map(_is_countable, (asked.measure, asked.every)))
        and len(asked.model) <= MAX_MODEL_CHARS
        and len(asked.category) <= NAME_CHARS
        and len(asked.tenant) == (DIGEST_CHARS if rules.tenants else 0)
        and any(asked.thinking == known.value for known in Thinking)
        and 0 < asked.sequences <= _MOST_COUNT
        and 0 < routed.stands_for <= MOST_STOOD_FOR
        and 0 < asked.share <= 1
        and 0 <= (asked.output_limit or 0) <= _MOST_COUNT
        and 0 <= asked.output_floor <= _MOST_COUNT
        and _is_budget(routed.budget)
        and any(pool.name == routed.pool for pool in rules.pools)
    )


def _is_budget(budget: Budget) -> bool:
    totals = (budget.expected or 0, budget.most or 0)
    parts = (budget.prompt_tokens, budget.output_tokens, abs(budget.margin_tokens), *totals)
    return all(0 <= tokens <= _MOST_COUNT for tokens in parts)


def _is_countable(measure: Measure) -> bool:
    counts = (*measure.features, measure.text_bytes, measure.token_ids)
    return (
        len(measure.features) == len(FEATURES)
        and min(counts) >= 0
        and max(counts) <= _MOST_COUNT
        and 0 <= measure.unseen <= 1
    )
