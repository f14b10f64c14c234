"""What is said of a decision: headers for Envoy's routes, and a note for the observing stream.

The stream of the routing filter ends with the decision; the answer is seen by another stream, which
may run in another process. The record travels between them in Envoy's dynamic metadata, as one JSON
text: metadata itself knows only doubles.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Self
from urllib.parse import quote

import msgspec

from extproc.budget.category import label
from extproc.budget.learner import name_category
from extproc.budget.values import Asked, Measure
from extproc.names import (
    BASIS_HEADER,
    BUDGET_HEADER,
    CATEGORY_HEADER,
    NOTE,
    POOL_HEADER,
    PREFIX,
    REASON_HEADER,
    RETRYABLE_HEADER,
    SHADOW_PREFIX,
)
from extproc.request.apis import Endpoint
from extproc.request.reader import MAX_MODEL_CHARS
from extproc.routing.pools import Pool
from extproc.routing.route import Routed, Rules
from extproc.routing.sound import MOST_COUNT, is_asked
from extproc.stream.sampling import MOST as MOST_STOOD_FOR
from extproc.stream.usage_asking import UsageForm

USAGE_REQUEST: Final = b'"stream_options":{"include_usage":true},'

_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_MOST_NOTE_CHARS: Final = 32_768  # more than twice the longest that this service writes


class Noted(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What the observing stream needs of a decision, to judge it and to learn from the answer."""

    pool: str
    asked: Asked
    prompt_tokens: int
    """The estimate."""
    truncates: bool
    """Whether the pool may cut the prompt before it counts it."""
    stands_for: int
    """How many such requests this one stands for: the answers of the others are not observed."""
    usage: UsageForm
    home: str = ""
    """The pool that the budget alone chose, if the load moved the request to another one."""
    api: Endpoint = Endpoint.CHAT

    @classmethod
    def of(
        cls,
        routed: Routed,
        stands_for: int = 1,
        usage: UsageForm = UsageForm.OTHER,
        api: Endpoint = Endpoint.CHAT,
    ) -> Self:
        """Return the record of a request that was read."""
        return cls(
            pool=routed.pool,
            asked=routed.asked,
            prompt_tokens=routed.budget.prompt_tokens,
            truncates=routed.truncates,
            stands_for=stands_for,
            usage=usage,
            home=routed.home,
            api=api,
        )


class _AskedInBrief(msgspec.Struct, frozen=True, gc=False):
    model: str
    tenant: str = ""


class _InBrief(msgspec.Struct, frozen=True, gc=False):
    """What an answer that teaches nothing needs of a record; the rest costs most to decode."""

    pool: str
    asked: _AskedInBrief
    stands_for: int
    usage: UsageForm
    home: str = ""


_DECODER: Final = msgspec.json.Decoder(Noted)
_BRIEF_DECODER: Final = msgspec.json.Decoder(_InBrief)


def decision_headers(routed: Routed) -> dict[str, str]:
    """Return the request headers that carry a decision; all values are printable ASCII."""
    if not routed.pool:
        return {REASON_HEADER: routed.reason}
    headers = {POOL_HEADER: routed.pool, REASON_HEADER: routed.reason}
    if routed.retryable:
        headers[RETRYABLE_HEADER] = "1"
    if routed.reason.is_read:
        headers[BUDGET_HEADER] = str(routed.budget.tokens)
        headers[CATEGORY_HEADER] = _quoted(label(name_category(routed.asked)))
        headers[BASIS_HEADER] = routed.budget.basis
    return headers


def shadow_headers(routed: Routed) -> dict[str, str]:
    """Return the headers that tell a decision to people, and that no route looks at."""
    headers = decision_headers(routed)
    headers.pop(RETRYABLE_HEADER, None)
    return {SHADOW_PREFIX + name.removeprefix(PREFIX): value for name, value in headers.items()}


@lru_cache(1024)
def _quoted(name: str) -> str:
    return quote(name, safe=_PRINTABLE)


def to_note(noted: Noted) -> dict[str, str]:
    """Return the record as metadata."""
    return {NOTE: msgspec.json.encode(noted).decode()}


def note_text(note: Mapping[str, str | float | bool]) -> str | None:
    """Return the record as text, to keep it until the end of an answer; None if there is none."""
    text = note.get(NOTE)
    return text if isinstance(text, str) and 0 < len(text) <= _MOST_NOTE_CHARS else None


def from_note(note: Mapping[str, str | float | bool], rules: Rules) -> Noted | None:
    """Return the record, or None if the note holds none that this service can have written."""
    text = str(note.get(NOTE, ""))
    if len(text) > _MOST_NOTE_CHARS:
        return None
    try:
        noted = _DECODER.decode(text)
    except msgspec.DecodeError:
        return None
    return noted if is_asked(noted.asked) and _is_sound(noted, rules) else None


def brief_from_note(text: str, rules: Rules) -> Noted | None:
    """Return the record without what is known of the prompt, for an answer that teaches nothing."""
    try:
        found = _BRIEF_DECODER.decode(text)
    except msgspec.DecodeError:
        return None
    asked = Asked(found.asked.model, "", Measure(0), None, tenant=found.asked.tenant)
    noted = Noted(
        pool=found.pool,
        asked=asked,
        prompt_tokens=0,
        truncates=False,
        stands_for=found.stands_for,
        usage=found.usage,
        home=found.home,
    )
    known = len(asked.model) <= MAX_MODEL_CHARS and _is_sound(noted, rules)
    return noted if known else None


def ask_for_usage(body: bytes) -> bytes:
    """Insert `stream_options` as the first field of a body; every other byte stays.

    The body is a non-empty JSON object without a field of that name.
    """
    start = body.index(b"{") + 1
    return body[:start] + USAGE_REQUEST + body[start:]


def _is_sound(noted: Noted, rules: Rules) -> bool:
    asked = noted.asked
    return (
        bool(asked.tenant) == bool(rules.tenants)
        and 0 < noted.stands_for <= MOST_STOOD_FOR
        and 0 <= noted.prompt_tokens <= MOST_COUNT
        and _is_in(noted, rules.row(asked.model))
    )


def _is_in(noted: Noted, row: Sequence[Pool]) -> bool:
    names = [pool.name for pool in row]
    return noted.pool in names and (not noted.home or noted.home in names)
