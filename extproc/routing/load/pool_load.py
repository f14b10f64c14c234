"""Add up what the servers of each pool report: requests, rates, and what is not known."""

import enum
import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Final

import msgspec
from msgspec import structs

from extproc.routing.load.report import Report

_MEMORY_S: Final = 10.0
"""Rates are means over about the last so many seconds."""
_QUEUE_MEMORY_S: Final = 2.5
"""The same, of the rate at which a queue empties: it falls at once when all places are taken."""
_QUEUE_S: Final = 0.25
"""A queue of less work is that of requests which the next iterations take."""
_REFUSALS: Final = 2
"""Connections in a row that a server must refuse to count as down."""


class State(enum.StrEnum):
    """What is known of the load of a pool."""

    KNOWN = "known"
    UNKNOWN = "unknown"  # fewer than half of its servers have reported lately
    DOWN = "down"  # all of its servers have reported before, and refuse connections now


class PoolLoad(msgspec.Struct, frozen=True, gc=False):
    """The load of all servers of a pool together, at one moment."""

    servers: int = 0
    known: int = 0
    """Servers that have reported lately."""
    down: int = 0
    """Servers that have reported before, and refuse connections now."""
    age_s: float = 0.0
    """Seconds since the reports were made, in the mean."""
    running: float = 0.0
    waiting: float = 0.0
    room: float = 0.0
    """Requests that can run at once, as last seen; 0: unknown, as no queue has been seen."""
    kv_usage: float = 0.0
    """The mean over the servers, 0 to 1."""
    rate: float = 0.0
    """Requests that leave the queue per second while there is one, or are answered; above 0."""
    arrivals: float = 0.0
    """Requests that came per second, from whatever sender."""
    preemptions: float = 0.0
    """Per second."""

    @property
    def state(self) -> State:
        """Whether the other figures can be relied on."""
        if self.servers and self.down == self.servers:
            return State.DOWN
        up = self.servers - self.down
        return State.KNOWN if self.known and 2 * self.known >= up else State.UNKNOWN


class Tracker:
    """Is told the reports of all servers, in order of time; a server has any key."""

    def __init__(self, pools: Iterable[str], stale_s: float) -> None:
        """A report older than `stale_s` counts as missing."""
        self._pools: dict[str, dict[Hashable, _Server]] = {name: {} for name in pools}
        self._stale_s = stale_s

    def set_servers(self, pool: str, servers: Iterable[Hashable]) -> None:
        """State which servers a pool has; what is known of the others is forgotten."""
        known = self._pools[pool]
        self._pools[pool] = {key: known.get(key) or _Server() for key in servers}

    def tell(self, pool: str, server: Hashable, report: Report, at_s: float) -> None:
        """Add a report, and the time at which it was asked for."""
        if found := self._pools[pool].get(server):
            found.tell(report, at_s)

    def refuse(self, pool: str, server: Hashable) -> None:
        """Note that a server refused a connection."""
        if found := self._pools[pool].get(server):
            found.refusals += 1

    def loads(self, now_s: float) -> dict[str, PoolLoad]:
        """Return the load of each pool."""
        return {
            name: _added(list(servers.values()), now_s, self._stale_s)
            for name, servers in self._pools.items()
        }


class _Mean:
    """Events per second, over about the last so many seconds."""

    __slots__ = ("events", "memory_s", "seconds")

    def __init__(self, memory_s: float = _MEMORY_S) -> None:
        self.events = self.seconds = 0.0
        self.memory_s = memory_s

    def add(self, events: float, seconds: float) -> None:
        decay = math.exp(-seconds / self.memory_s)
        self.events = self.events * decay + events
        self.seconds = self.seconds * decay + seconds

    def per_s(self, more: float = 0.0) -> float:
        return (self.events + more) / self.seconds if self.seconds else 0.0


class _Server:
    """What one server has reported."""

    def __init__(self) -> None:
        self.last: Report | None = None
        self.at_s = -math.inf
        self.refusals = 0
        self._forget()

    def _forget(self) -> None:
        self.room = 0.0
        self.finished, self.arrived, self.preempted = _Mean(), _Mean(), _Mean()
        self.admitted = _Mean(_QUEUE_MEMORY_S)  # while some waited

    @property
    def is_down(self) -> bool:
        return self.last is not None and self.refusals >= _REFUSALS

    @property
    def rate(self) -> float:
        # One more than was seen: that none has left in half a second does not mean that none will.
        return max(self.admitted.per_s(1.0), self.finished.per_s(), 1.0 / _MEMORY_S)

    def tell(self, report: Report, at_s: float) -> None:
        self.refusals = 0
        last, seconds = self.last, at_s - self.at_s
        if last and seconds <= 0:
            return
        if last and report.finished >= last.finished and report.preemptions >= last.preemptions:
            self._add(last, report, seconds)
        else:  # the first, or it has been restarted
            self._forget()
        if (last and self._is_full(last, report)) or 0 < self.room < report.running:
            self.room = report.running
        self.last, self.at_s = report, at_s

    def _is_full(self, last: Report, report: Report) -> bool:
        """Return whether requests wait for a place, and not for the next iterations alone."""
        queue = min(last.waiting, report.waiting)
        return report.running <= last.running and queue > self.rate * _QUEUE_S

    def _add(self, last: Report, report: Report, seconds: float) -> None:
        done = report.finished - last.finished
        held, before = report.running + report.waiting, last.running + last.waiting
        self.finished.add(done, seconds)
        # A request that is aborted leaves without an answer.
        self.arrived.add(max(0.0, done + held - before), seconds)
        preempted = report.preemptions - last.preemptions
        self.preempted.add(preempted, seconds)
        if last.waiting or report.waiting:
            left = done + report.running - last.running + preempted
            self.admitted.add(max(0.0, left), seconds)


def _added(servers: list[_Server], now_s: float, stale_s: float) -> PoolLoad:
    down = sum(server.is_down for server in servers)
    fresh = [(s, s.last) for s in servers if s.last and _is_fresh(s, now_s, stale_s)]
    counts = PoolLoad(servers=len(servers), known=len(fresh), down=down)
    if not fresh:
        return counts
    # Those that have not reported are taken to be like those that have.
    scale = (len(servers) - down) / len(fresh)
    rooms = [server.room for server, _ in fresh]
    return structs.replace(
        counts,
        age_s=now_s - sum(server.at_s for server, _ in fresh) / len(fresh),
        running=scale * sum(report.running for _, report in fresh),
        waiting=scale * sum(report.waiting for _, report in fresh),
        room=scale * sum(rooms) if all(rooms) else 0.0,
        kv_usage=sum(report.kv_usage for _, report in fresh) / len(fresh),
        rate=scale * sum(server.rate for server, _ in fresh),
        arrivals=scale * sum(server.arrived.per_s() for server, _ in fresh),
        preemptions=scale * sum(server.preempted.per_s() for server, _ in fresh),
    )


def _is_fresh(server: _Server, now_s: float, stale_s: float) -> bool:
    return not server.is_down and now_s - server.at_s <= stale_s


def describe(load: PoolLoad) -> Mapping[str, object]:
    """Return the load of a pool as GET /state shows it; no figures if it is not known."""
    known = {"state": load.state.value, "servers": load.servers, "reporting": load.known}
    if load.state is not State.KNOWN:
        return known
    figures = ("running", "waiting", "room", "kv_usage", "rate", "arrivals", "preemptions", "age_s")
    return {**known, **{name: round(getattr(load, name), 3) for name in figures}}
