"""Keep a conversation in the pool whose prefix caches have it, while its budget fits there.

A later request of a conversation begins with what its pool has computed before. In another pool all
of that is computed again, so a conversation leaves its pool only once its budget exceeds the
window, and then for the largest pool of its row: it moves up at most once, and never down.

Invariant: what is remembered is bounded, those conversations that were used last, by keyed digests.
"""

import enum
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from extproc.budget.estimate import Budget
from extproc.budget.values import Asked
from extproc.request.reader import Request
from extproc.routing.pools import Decision, Pool, Reason
from extproc.routing.resume import Trail

_DIGEST_BYTES: Final = 16
_STAYS: Final = frozenset({Reason.FITS, Reason.THRESHOLD, Reason.CAPACITY})


class By(enum.Enum):
    """What tells the conversation of a request."""

    HEADER = "header"
    USER = "user"
    MESSAGES = "messages"  # it begins with an earlier request


@dataclass(frozen=True, slots=True)
class Naming:
    """How conversations are told apart; those of different tenants and models always are."""

    by: By
    header: str
    """The request header that names the conversation, with HEADER."""
    key: bytes = field(repr=False)

    def names(self, request: Request, asked: Asked, value: str, trail: Trail | None) -> list[str]:
        """Return the digests by which the conversation may be known, the one to keep first.

        `value` is that of the header, `trail` the beginnings of the prompt. Empty if nothing tells
        the conversation.
        """
        if self.by is By.MESSAGES:
            if trail is None:
                return []
            # Instructions alone are those of other conversations too.
            least = trail.conversation.instructions
            return [digest for turns, digest in trail.beginnings if turns > least]
        name = request.user if self.by is By.USER else value
        if not name:
            return []
        hashed = blake2b(digest_size=_DIGEST_BYTES, key=self.key)
        for text in (asked.tenant, asked.model, name):
            data = text.encode("utf-8", "surrogatepass")
            hashed.update(b"%d:%b" % (len(data), data))
        return [hashed.hexdigest()]


class StickyPools:
    """The pools of conversations; of one process. Not thread-safe."""

    def __init__(self, most: int) -> None:
        """Remember at most so many."""
        self._most = most
        self._pools: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pools)

    def resize(self, most: int) -> None:
        """Remember at most so many from now on."""
        self._most = most
        self._forget()

    def find(self, names: Sequence[str]) -> str:
        """Return the pool of a conversation by the first name that is known; empty if none is."""
        return next((self._pools[name] for name in names if name in self._pools), "")

    def keep(self, name: str, pool: str) -> None:
        """Remember that a conversation is in a pool."""
        self._pools[name] = pool
        self._pools.move_to_end(name)
        self._forget()

    def _forget(self) -> None:
        while len(self._pools) > self._most:
            self._pools.popitem(last=False)


def stay(home: Decision, budget: Budget, pools: Sequence[Pool], name: str) -> Decision:
    """Return the decision for a request whose conversation is in the pool `name`.

    `home` is what the budget alone decides among `pools`, in ascending order of their windows.
    """
    pool = next((pool for pool in pools if pool.name == name), home.pool)
    if home.reason not in _STAYS:
        return home
    if budget.tokens > pool.max_model_len:
        pool = pools[-1]
    return home if pool is home.pool else Decision(pool, Reason.STICKY)
