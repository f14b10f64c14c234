"""A map of at most so many keys that traffic over more keys cannot thrash."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from extproc.budget.saved import SavedTouches

IDLE: Final = 32
"""A key is idle once 32 touches for every place of the map went to other keys."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedMap(Generic[Key, Value]):
    """Keeps `most` keys. A new key evicts the least recently touched one only if that is idle.

    A plain LRU map forgets everything if `most + 1` keys take turns. Here the keys that came first
    stay while they are used, and the caller treats all others as one.
    """

    def __init__(self, most: int) -> None:
        self.evicted = 0
        self._most = most
        self._touches = 0
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return the value of a key, or None if it is not kept."""
        entry = self._entries.get(key)
        return entry[0] if entry else None

    def items(self) -> Iterator[tuple[Key, Value]]:
        """Yield all keys with their values, the least recently touched first."""
        return ((key, value) for key, (value, _) in self._entries.items())

    def has_room(self, key: Key) -> bool:
        """Return whether `touch` would keep this key."""
        if key in self._entries or len(self._entries) < self._most:
            return True
        _, touched = next(iter(self._entries.values()))
        return self._touches - touched > IDLE * self._most

    @property
    def has_spare(self) -> bool:
        """Whether fewer than half of the places are taken."""
        return 2 * len(self._entries) < self._most

    def touch(self, key: Key, value: Value) -> Key | None:
        """Keep the value of a key that has room; return the key that was evicted for it."""
        self._touches += 1
        gone = None
        if key not in self._entries and len(self._entries) >= self._most:
            gone, _ = self._entries.popitem(last=False)
            self.evicted += 1
        self._entries[key] = value, self._touches
        self._entries.move_to_end(key)
        return gone

    def resize(self, most: int) -> list[Key]:
        """Keep at most so many keys from now on; return those that had to go."""
        self._most, gone = most, list[Key]()
        while len(self._entries) > most:
            gone.append(self._entries.popitem(last=False)[0])
        self.evicted += len(gone)
        return gone

    def pass_by(self) -> None:
        """Count a touch of a key that has no room, so that idle keys make room in time."""
        self._touches += 1

    def touched(self, key: Key) -> int:
        """Return when a key that is kept was touched last, in touches of the map."""
        return self._entries[key][1]

    def save(self) -> SavedTouches:
        """Return what a snapshot keeps beside the keys, in their order."""
        return SavedTouches(self._touches, self.evicted)

    def load(self, saved: SavedTouches) -> None:
        """Continue with the counts of a map that was saved; `restore` its keys then."""
        self._touches, self.evicted = saved.touches, saved.evicted

    def restore(self, key: Key, value: Value, touched: int) -> bool:
        """Keep a key that was saved; return False if it is kept already, or there is no room."""
        if key in self._entries or len(self._entries) >= self._most:
            return False
        self._entries[key] = value, touched
        return True

    def drop(self, key: Key) -> None:
        """Forget a key that is kept."""
        del self._entries[key]
