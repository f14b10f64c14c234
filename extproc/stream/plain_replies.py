"""Replies that tell a decision without a note, of which only the budget changes.

Invariant: a reply is the one that `replies.reply` makes of the headers of the same decision.
"""

from collections.abc import Callable
from typing import Final

from extproc.names import BUDGET_HEADER, PREFIX
from extproc.routing.plain import PlainRouted
from extproc.routing.route import Routed
from extproc.stream.replies import reply

_KEPT: Final = 1024
_BUDGET: Final = BUDGET_HEADER.removeprefix(PREFIX)  # also behind another prefix
_Key = tuple[str, str, bool, str, str, str, int]


class PlainReplies:
    """Encodes replies to bodies; `headers` returns those that tell a decision."""

    def __init__(self, headers: Callable[[Routed], dict[str, str]]) -> None:
        self._headers = headers
        self._kept: dict[_Key, tuple[bytes, bytes]] = {}

    def encode(self, found: PlainRouted, collect: Callable[[], Routed]) -> bytes:
        """Return the reply; `collect` returns all of the decision."""
        tokens = b"%d" % found.budget.tokens
        key = (
            found.pool.name,
            found.reason,
            found.retryable,
            found.category,
            found.model,
            found.budget.basis,
            len(tokens),
        )
        around = self._kept.get(key)
        if around is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            around = self._kept[key] = _around(self._headers(collect()), len(tokens))
        return around[0] + tokens + around[1]


def _around(headers: dict[str, str], digits: int) -> tuple[bytes, bytes]:
    """Return what is before and behind the budget in a reply."""
    budget = next(name for name in headers if name.endswith(_BUDGET))
    one, other = [reply("request_body", headers | {budget: digit * digits}) for digit in "01"]
    start = next(place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
    return one[:start], one[start + digits :]
