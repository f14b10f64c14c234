"""Queues with Poisson arrivals and c servers: the share of arrivals that wait, and how long.

For exponential service (M/M/c) every result is exact. Otherwise the mean wait is the two-moment
approximation of Kimura, or of Lee and Longton, and the wait of an arrival that waits is taken to be
exponential.

The formula that arXiv 2603.16514 prints for the 99th percentile, the mean wait times ln 100, is not
a percentile: it averages over arrivals that do not wait, and differs from the exact M/M/c result
(`extproc.papers.authors.printed_wait99_s` has it, for comparison).
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Arrivals of `rate_per_s` at equal servers with a mean service time of `service_s` seconds.

    scv: squared coefficient of variation of the service time: 1 if exponential, 0 if constant.
    """

    servers: int
    rate_per_s: float
    service_s: float
    scv: float = 1.0

    def __post_init__(self) -> None:
        """Validate. Raises ValueError."""
        if self.servers < 1 or min(self.rate_per_s, self.service_s, self.scv) < 0:
            raise ValueError("a queue needs a server, and no rate or time may be negative")

    @property
    def load(self) -> float:
        """Offered load, in servers (erlangs)."""
        return self.rate_per_s * self.service_s

    @property
    def utilisation(self) -> float:
        """Load per server; from 1 on the queue grows without bound."""
        return self.load / self.servers


def erlang_b(servers: int, load: float) -> float:
    """Return the share of arrivals that M/M/c/c rejects; 0 if it is below 1e-300.

    The recursion of 1/B only adds and multiplies positive numbers, so it is stable for any number
    of servers. Below the load it converges from any start, to exp(-40) within 9 standard
    deviations; so if the load is below the servers, it starts there with the asymptotic value.
    """
    if load == 0:
        return 0.0
    # For example 400,000 servers at a load of 380,000 start at server 374,452: 25,548 steps in
    # place of 400,000.
    first = max(0, math.floor(load - 9 * math.sqrt(load))) if load < servers else 0
    # Far fewer servers than load are all busy: they reject what exceeds them, B = 1 - first / load.
    inverse = 1 / (1 - first / load)
    for k in range(first + 1, servers + 1):
        inverse = 1.0 + inverse * k / load
        if inverse > 1e300:
            return 0.0
    return 1.0 / inverse


def erlang_c(servers: int, load: float) -> float:
    """Return the share of arrivals that wait in M/M/c; 1 if the servers are overloaded."""
    if load >= servers:
        return 1.0
    # C = B / (1 - rho (1 - B)), rho = load / servers: no factorials, which overflow from 171 on. 10
    # servers at a load of 8: B = .1217, C = .4092.
    blocked = erlang_b(servers, load)
    return blocked / (1 - load / servers * (1 - blocked))


def wait_of_waiting_s(queue: Queue) -> float:
    """Return the mean wait in M/G/c of the arrivals that wait; infinite if overloaded.

    T. Kimura, Management Science 32 (1986), for Poisson arrivals: an interpolation between M/M/c
    and M/D/c, the latter by G. Cosmetatos (1975). For service that varies more than exponential,
    A. Lee and P. Longton (1959), which is closer there and conservative.
    """
    if queue.utilisation >= 1:
        return math.inf
    # The exact mean of M/M/c. 10 servers at a load of 8 and 1 s of service: 0.50 s; with scv 0.5 it
    # is 0.39 s, with scv 2 it is 0.75 s.
    exponential = queue.service_s / (queue.servers * (1 - queue.utilisation))
    if queue.scv >= 1:
        return exponential * (1 + queue.scv) / 2
    constant = _constant_service(queue.servers, queue.utilisation)
    return exponential * (1 + queue.scv) / (2 * queue.scv + (1 - queue.scv) / constant)


def mean_wait_s(queue: Queue) -> float:
    """Return the mean wait in M/G/c, including zero waits; infinite if overloaded."""
    return erlang_c(queue.servers, queue.load) * wait_of_waiting_s(queue)


def wait_percentile_s(queue: Queue, share: float = 0.99) -> float:
    """Return the wait that this share of arrivals does not exceed, in seconds."""
    if queue.utilisation >= 1:
        return math.inf
    waiting = erlang_c(queue.servers, queue.load)
    if waiting <= 1 - share:
        return 0.0
    # P(wait > x) = C exp(-x / w), with w the mean wait of those that wait, solved for x.
    return wait_of_waiting_s(queue) * math.log(waiting / (1 - share))


def _constant_service(servers: int, utilisation: float) -> float:
    """Return the mean wait of M/D/c as a share of that of M/M/c: from 1/2 to 1."""
    if utilisation == 0:
        return 1.0
    # Cosmetatos' correction. Exactly 1/2 for one server (Pollaczek and Khinchine); at a utilisation
    # of .8 it is .507 for 2 servers and .538 for 10.
    spread = (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * servers)
    return min(1.0, (1 + spread * (1 - utilisation) / utilisation) / 2)
