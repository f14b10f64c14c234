"""A store of a shared state in memory, with the faults of a real one."""

import random

from extproc.service.shared_state import Found, Stored, StoreError
from extproc.state.log import order_of


class MemoryStore:
    """What several replicas share; `Connection` is the view of one."""

    def __init__(self) -> None:
        self.log: list[tuple[str, bytes]] = []
        self.snapshot: Stored | None = None
        self.time = 0
        self.under_way: list[bytes] = []
        """Entries of connections that were given up, which arrive later."""

    def arrive(self) -> None:
        for entry in self.under_way if self.log else ():
            self.append(entry)
        self.under_way = []

    def append(self, entry: bytes) -> None:
        self.time += 1
        self.log.append((f"{self.time}-0", entry))

    def flush(self) -> None:
        self.log, self.snapshot = [], None

    def trim(self) -> None:
        del self.log[:-1]

    def copy(self) -> tuple[list[tuple[str, bytes]], Stored | None]:
        return list(self.log), self.snapshot

    def fail_over(self, copied: tuple[list[tuple[str, bytes]], Stored | None]) -> None:
        """Go on from what a replica of the store had received."""
        self.log, self.snapshot = list(copied[0]), copied[1]


class Connection:
    """A Store. With `faults`, a random generator, calls fail before or after they have effect."""

    most_read = 7

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.faults: random.Random | None = None

    def _maybe_fail(self, share: float = 0.15) -> None:
        if self.faults and self.faults.random() < share:
            raise StoreError("a fault")

    async def exchange(self, entries, position):
        if self.faults and self.faults.random() < 0.2:
            self.store.under_way += entries
            raise StoreError("too slow")
        self._maybe_fail()
        log = self.store.log
        for entry in entries:
            self._maybe_fail(0.03)  # the others were appended
            if log:
                self.store.append(entry)
        self._maybe_fail()
        return [each for each in log if order_of(each[0]) >= order_of(position)][: self.most_read]

    async def find(self):
        self._maybe_fail()
        stored, log = self.store.snapshot, dict(self.store.log)
        content = log.get(stored.position) if stored else None
        return Found(stored, content, empty=stored is None and not log)

    async def save(self, stored):
        self._maybe_fail()
        before = self.store.snapshot
        if before and order_of(before.position) >= order_of(stored.position):
            raise StoreError("a later one is there")
        self.store.snapshot = stored
        if before:
            oldest = order_of(before.position)
            self.store.log = [each for each in self.store.log if order_of(each[0]) >= oldest]
        self._maybe_fail()

    async def seed(self, found, marks, data):
        self._maybe_fail()
        if self.store.snapshot != found.stored or (found.empty and self.store.log):
            raise StoreError("another was quicker")
        self.store.log = []
        self.store.append(b"")
        self.store.snapshot = Stored(self.store.log[0][0], marks, data)
        self._maybe_fail()

    async def close(self):
        pass
