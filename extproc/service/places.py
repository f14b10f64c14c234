"""The places of open streams, and who gives one up when all are taken.

Invariant: a newcomer is refused only if no other peer holds more places than its own would then.
"""

import math

_OVER = -math.inf


class Deadline:
    """When a stream is to end, in the event loop's time; its server looks at each tick."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        self.at = at

    def reschedule(self, when: float | None) -> None:
        """Set the end; None is never. Without effect after `end`."""
        if self.at != _OVER:
            self.at = math.inf if when is None else when

    def end(self) -> None:
        """End the stream at the next tick, whatever it says until then; idempotent."""
        self.at = _OVER


class Places:
    """At most `most` open streams, shared between peers.

    If all places are taken, a peer that holds few gets that of the oldest stream of the peer that
    holds most. Old streams observe an answer; those that wait for a decision are young.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._peers: dict[str, dict[Deadline, None]] = {}  # oldest first

    def take(self, peer: str, deadline: Deadline) -> bool:
        """Take a place for the stream of this deadline; False if there is none."""
        if self._taken >= self._most and not self._make_room(peer):
            return False
        self._peers.setdefault(peer, {})[deadline] = None
        self._taken += 1
        return True

    def leave(self, peer: str, deadline: Deadline) -> None:
        """Give the place back; idempotent."""
        held = self._peers.get(peer, {})
        if deadline in held:
            del held[deadline]
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
