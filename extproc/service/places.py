"""The places of open streams, and who gives one up when all are taken.

Invariant: a newcomer is refused only if no other peer holds more places than its own would then.
"""

from typing import Protocol


class Patience(Protocol):
    """How long a stream may last."""

    def reschedule(self, when: float | None) -> None:
        """Set the end, in the event loop's time; None is never. Without effect after `end`."""

    def end(self) -> None:
        """End the stream soon, whatever it says until then; idempotent."""


class Places:
    """At most `most` open streams, shared between peers.

    If all places are taken, a peer that holds few gets that of the oldest stream of the peer that
    holds most. Old streams observe an answer; those that wait for a decision are young.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._peers: dict[str, dict[Patience, None]] = {}  # oldest first

    def take(self, peer: str, patience: Patience) -> bool:
        """Take a place for a stream that `patience` can end; False if there is none."""
        if self._taken >= self._most and not self._make_room(peer):
            return False
        self._peers.setdefault(peer, {})[patience] = None
        self._taken += 1
        return True

    def leave(self, peer: str, patience: Patience) -> None:
        """Give the place back; idempotent."""
        held = self._peers.get(peer, {})
        if patience in held:
            del held[patience]
            self._taken -= 1
            if not held:
                del self._peers[peer]

    def _make_room(self, newcomer: str) -> bool:
        heaviest = max(self._peers, key=lambda peer: len(self._peers[peer]), default=newcomer)
        # + 1: with 6 and 4 of 10 places the second takes one of the first. At 5 and 5 neither does,
        # or the two would end each other's streams in turn; a third peer still gets one.
        if len(self._peers.get(heaviest, ())) <= len(self._peers.get(newcomer, ())) + 1:
            return False
        oldest = next(iter(self._peers[heaviest]))
        oldest.end()
        self.leave(heaviest, oldest)
        return True
