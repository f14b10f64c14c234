"""The papers' own planner, reproduced exactly, for comparison only.

It follows `vllm-sr-sim` 0.1.0 (arXiv 2603.16054): a GPU is an instance, each pool is sized from
3,000 lengths drawn from the CDF with seed 42, and four fifths of a total are prompt tokens.
`extproc.planner.sizing.search` differs where this model is known to be wrong: here a prompt chunk
costs as much as an output token, prefilling prompts cost no attention, the TTFT objective bounds
the wait alone, and no request is misrouted.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from extproc.planner.sizing.question import WINDOW
from extproc.planner.sizing.queueing import Queue, erlang_c

_DRAWS: Final = 3000
_SEED: Final = 42
_CALIBRATED_AT: Final = 8192  # tokens for which sequence_s and max_slots are given
_MAX_UTILISATION: Final = 0.85

Cdf = Sequence[tuple[int, float]]
"""Ascending points of tokens and share of requests within them; the last share is 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorsProfile:
    """A row of the table of arXiv 2603.16054: seconds per iteration, KV blocks of 16 tokens."""

    name: str
    weights_s: float
    sequence_s: float
    chunk_tokens: int
    blocks: int
    max_slots: int

    def slots(self, window: int) -> int:
        """Return how many sequences of `window` tokens an instance runs."""
        by_memory = self.blocks // math.ceil(window / 16)
        # A100: 256 slots at 4,096 tokens, 128 at 8,192 and 16 at 65,536.
        return min(self.max_slots * _CALIBRATED_AT // window, by_memory)

    def service_s(self, prompt: int, output: int, slots: int) -> float:
        """Return the seconds that a request holds its slot while all slots are taken."""
        attention = self.sequence_s * (prompt + output) / _CALIBRATED_AT
        iterations = math.ceil(prompt / self.chunk_tokens) + output
        return iterations * (self.weights_s + attention * slots)


AUTHORS_A100: Final = AuthorsProfile(
    name="A100-80GB",
    weights_s=0.008,
    sequence_s=0.00065,
    chunk_tokens=512,
    blocks=65_536,
    max_slots=128,
)


@dataclass(frozen=True, slots=True)
class AuthorsFleet:
    """The result of that planner: instances of the short and of the long pool."""

    short: int
    long: int

    @property
    def instances(self) -> int:
        """Instances of both pools."""
        return self.short + self.long


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorsQuestion:
    """The question to that planner: requests per second, objective for P99 wait, window."""

    cdf: Cdf
    rate_per_s: float
    slo_s: float
    window: int = WINDOW
    profile: AuthorsProfile = AUTHORS_A100


def authors_fleet(question: AuthorsQuestion, threshold: int) -> AuthorsFleet:
    """Size both pools; a threshold equal to the window gives a homogeneous fleet."""
    alpha = _share_within(question.cdf, threshold)
    short = [(tokens, share) for tokens, share in question.cdf if tokens <= threshold]
    held = short[-1][1] if short else 1.0
    short = [(tokens, share / held) for tokens, share in short] or [(threshold, 1.0)]
    # Their cut-off: below 0.01 requests/s they build no long pool.
    rest = question.rate_per_s * (1 - alpha)
    return AuthorsFleet(
        _instances(question, _AuthorsPool(short, threshold, 1), question.rate_per_s * alpha),
        _instances(question, _long(question, threshold, alpha), rest) if rest > 0.01 else 0,
    )


def printed_wait99_s(queue: Queue) -> float:
    """Return `W99 = C / (c mu (1 - rho)) (1 + Cs**2) / 2 ln 100`, as arXiv 2603.16514 prints it."""
    if queue.utilisation >= 1:
        return math.inf
    mean = erlang_c(queue.servers, queue.load) * queue.service_s * (1 + queue.scv) / 2
    return mean / (queue.servers * (1 - queue.utilisation)) * math.log(100)


def coded_wait99_s(queue: Queue) -> float:
    """Return `W99 = ln(C / .01) (1 + Cs**2) / (2 (c mu - lambda))`, as vllm-sr-sim computes it.

    Exact for exponential service; otherwise the mean is that of Lee and Longton (1959).
    """
    if queue.utilisation >= 1:
        return math.inf
    waiting = erlang_c(queue.servers, queue.load)
    spare_per_s = (queue.servers - queue.load) / queue.service_s
    # Erlang's C underflows to 0 in large idle fleets, whose logarithm does not exist.
    return max(0.0, math.log(max(waiting, 1e-300) / 0.01)) * (1 + queue.scv) / (2 * spare_per_s)


@dataclass(frozen=True, slots=True)
class _AuthorsPool:
    cdf: Cdf
    window: int
    least: int  # tokens of the shortest request to draw


def _long(question: AuthorsQuestion, threshold: int, alpha: float) -> _AuthorsPool:
    above = [(tokens, share) for tokens, share in question.cdf if tokens > threshold]
    cdf = [(tokens, max(0.0, (share - alpha) / (1 - alpha))) for tokens, share in above]
    return _AuthorsPool([*cdf[:-1], (cdf[-1][0], 1.0)] if cdf else [], question.window, threshold)


def _instances(question: AuthorsQuestion, pool: _AuthorsPool, rate: float) -> int:
    """Find the fewest instances that meet the objective, at least one more than the load needs."""
    slots = question.profile.slots(pool.window)
    service_s, scv = _service(question.profile, pool)
    busy = rate * service_s / slots
    # They try no smaller fleet, also where it would meet the objective.
    count = math.ceil(busy) + 1
    while (
        coded_wait99_s(Queue(servers=count * slots, rate_per_s=rate, service_s=service_s, scv=scv))
        > question.slo_s
    ):
        count += 1
    return max(count, math.ceil(busy / _MAX_UTILISATION))


def _service(profile: AuthorsProfile, pool: _AuthorsPool) -> tuple[float, float]:
    """Return the mean service time, in seconds, and its squared coefficient of variation."""
    slots = profile.slots(pool.window)
    times = []
    for total in _lengths(pool):
        prompt = max(1, int(total * 0.8))
        times.append(profile.service_s(prompt, max(1, total - prompt), slots))
    mean = sum(times) / len(times)
    square = sum(time * time for time in times) / len(times)
    # Theirs: never quite constant, also if all lengths are equal.
    return mean, max(0.01, square / mean**2 - 1)


def _lengths(pool: _AuthorsPool) -> list[int]:
    """Draw totals, uniformly within each bucket of the CDF."""
    rng = random.Random(_SEED)  # noqa: S311 - not secret
    lengths = []
    for _ in range(_DRAWS):
        drawn = rng.random()
        below = 0
        for tokens, share in pool.cdf:
            if drawn <= share:
                low, high = max(pool.least, below + 1), min(pool.window, tokens)
                lengths.append(rng.randint(low, high) if low <= high else pool.window)
                break
            below = tokens
    return lengths


def _share_within(cdf: Cdf, tokens: int) -> float:
    """Interpolate the CDF linearly from (0, 0)."""
    below, so_far = 0, 0.0
    for point, share in cdf:
        if tokens <= point:
            return so_far + (share - so_far) * (tokens - below) / (point - below)
        below, so_far = point, share
    return 1.0
