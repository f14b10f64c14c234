"""Queues with Poisson arrivals and c servers: who waits, and for how long.

For exponential service (M/M/c) every result is exact. For any other the mean wait is Kimura's
two-moment approximation, or that of Lee and Longton, and a wait, given that there is one, is taken
to be exponential.

The formula that arXiv 2603.16514 prints for the 99th percentile, the mean wait times ln 100, is no
percentile: it spreads over everybody what only those who wait have, and misses the exact M/M/c
result on both sides (`extproc.papers.authors.printed_wait99_s` has it, for comparison).
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Arrivals of `rate_per_s`, served by equal servers in `service_s` seconds each, on average.

    scv: the squared coefficient of variation of the service time: 1 if exponential, 0 if constant.
    """

    servers: int
    rate_per_s: float
    service_s: float
    scv: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no queue."""
        if self.servers < 1 or min(self.rate_per_s, self.service_s, self.scv) < 0:
            raise ValueError("a queue has a server, and neither rate nor times below 0")

    @property
    def load(self) -> float:
        """Offered load, in servers (erlangs)."""
        return self.rate_per_s * self.service_s

    @property
    def utilisation(self) -> float:
        """Load for each server; from 1 on the queue grows for ever."""
        return self.load / self.servers


def erlang_b(servers: int, load: float) -> float:
    """Return the share of arrivals that M/M/c/c turns away; 0 where it is below 1e-300.

    The recursion of 1/B only adds and multiplies positive numbers, so it is sound for any number of
    servers. Below the load it forgets where it began, to exp(-40) within 9 standard deviations; so,
    if the load is below the servers, it begins there, with the value of many servers.
    """
    if load == 0:
        return 0.0
    first = max(0, math.floor(load - 9 * math.sqrt(load))) if load < servers else 0
    inverse = 1 / (1 - first / load)
    for k in range(first + 1, servers + 1):
        inverse = 1.0 + inverse * k / load
        if inverse > 1e300:
            return 0.0
    return 1.0 / inverse


def erlang_c(servers: int, load: float) -> float:
    """Return the share of arrivals that wait in M/M/c; 1 where the servers cannot keep up."""
    if load >= servers:
        return 1.0
    blocked = erlang_b(servers, load)
    return blocked / (1 - load / servers * (1 - blocked))


def wait_of_waiting_s(queue: Queue) -> float:
    """Return the mean wait in M/G/c of those who wait; infinite if the servers cannot keep up.

    T. Kimura, Management Science 32 (1986), for Poisson arrivals: between M/M/c and M/D/c, the
    latter by G. Cosmetatos (1975); service that varies more than exponential by A. Lee and
    P. Longton (1959), who are nearer to it and on the careful side.
    """
    if queue.utilisation >= 1:
        return math.inf
    exponential = queue.service_s / (queue.servers * (1 - queue.utilisation))
    if queue.scv >= 1:
        return exponential * (1 + queue.scv) / 2
    constant = _constant_service(queue.servers, queue.utilisation)
    return exponential * (1 + queue.scv) / (2 * queue.scv + (1 - queue.scv) / constant)


def mean_wait_s(queue: Queue) -> float:
    """Return the mean wait in M/G/c, the zero waits included; infinite if it cannot keep up."""
    return erlang_c(queue.servers, queue.load) * wait_of_waiting_s(queue)


def wait_percentile_s(queue: Queue, share: float = 0.99) -> float:
    """Return the wait that this share of arrivals does not exceed: 0 where so many do not wait."""
    if queue.utilisation >= 1:
        return math.inf
    waiting = erlang_c(queue.servers, queue.load)
    if waiting <= 1 - share:
        return 0.0
    return wait_of_waiting_s(queue) * math.log(waiting / (1 - share))


def _constant_service(servers: int, utilisation: float) -> float:
    """Return the mean wait of M/D/c as a share of that of M/M/c: from 1/2, at most 1."""
    if utilisation == 0:
        return 1.0
    spread = (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * servers)
    return min(1.0, (1 + spread * (1 - utilisation) / utilisation) / 2)
