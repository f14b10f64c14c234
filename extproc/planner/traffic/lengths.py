"""Lengths of requests in tokens, and their arrival times.

A Workload is a weighted sample of lengths; a Trace is lengths with arrival times. A row is one
sequence, since that is what a window holds. Both are immutable, and draws depend on a seed alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from extproc.config.errors import UserError

Tokens = NDArray[np.int64]
Floats = NDArray[np.float64]

OUTPUT_SHARE: Final = 0.2
"""Output tokens as a share of the total if only totals are known, as in arXiv 2603.16054."""
_ROWS_IN_BUCKET: Final = 64


class InputError(UserError):
    """An input cannot be used; the text is `file:row: what is wrong; what is allowed`."""

    def __init__(self, file: str, row: int, text: str) -> None:
        """`row` counts lines of the file from 1; 0 means the whole file."""
        super().__init__(f"{file}:{row}: {text}" if row else f"{file}: {text}")


class Length(NamedTuple):
    """Tokens of one request, both at least 1."""

    prompt: int
    output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request of a trace.

    at_s: seconds from the start of the trace. max_tokens: the output limit that the client
    states. category: content class of the text. prefix: ids of the prompt's leading blocks of 512
    tokens, equal if the text up to there is equal; () if the trace has none.
    """

    at_s: float
    length: Length
    max_tokens: int | None = None
    category: str = ""
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """A weighted sample of lengths: rows of prompt and output tokens, both at least 1.

    The weights sum to 1. Use `equally_weighted`, `weighted` or `from_cdf`, which validate.
    """

    name: str
    prompt: Tokens
    output: Tokens
    weights: Floats

    def __len__(self) -> int:
        """Count the rows."""
        return self.weights.size

    @property
    def total(self) -> Tokens:
        """Prompt plus output tokens of every row."""
        return self.prompt + self.output

    def share_within(self, tokens: float) -> float:
        """Return the share of requests whose total is at most `tokens`: the paper's alpha."""
        within = self.total <= tokens
        # The sum may miss 1 by rounding, and callers take 1 to mean that nothing lies above.
        return 1.0 if within.all() else float(self.weights[within].sum())

    def between(self, above: float, up_to: float) -> "Workload":
        """Return the requests with above < total <= up_to. Raises ValueError if there are none."""
        inside = (self.total > above) & (self.total <= up_to)
        return weighted(self.name, self.prompt[inside], self.output[inside], self.weights[inside])

    def split(self, threshold: int) -> tuple["Workload", "Workload"]:
        """Return the requests within the threshold, and those over it.

        Raises ValueError if one side is empty: check `share_within` first.
        """
        return self.between(0, threshold), self.between(threshold, math.inf)

    def mean(self, values: Tokens | Floats) -> float:
        """Return the mean of one value per row, such as `workload.total`."""
        return float(self.weights @ values)

    def scv(self, values: Tokens | Floats) -> float:
        """Return the squared coefficient of variation of one value per row: variance / mean**2."""
        mean = self.mean(values)
        deviations = np.asarray(values, dtype=np.float64) - mean
        return self.mean(deviations**2) / mean**2

    def quantile(self, values: Tokens | Floats, q: float) -> float:
        """Return the smallest value that a share q, in (0, 1], of the requests does not exceed."""
        order = np.argsort(values, kind="stable")
        # The sum of many weights misses 1 by about 1e-12.
        at = int(np.searchsorted(np.cumsum(self.weights[order]), q - 1e-9))
        return float(values[order[min(at, len(self) - 1)]])

    def sample(self, rng: "np.random.Generator", n: int) -> tuple[Tokens, Tokens]:
        """Draw the prompt and the output tokens of n requests, with replacement."""
        edges = np.cumsum(self.weights)
        rows = np.searchsorted(edges, rng.random(n) * edges[-1], side="right")
        return self.prompt[rows], self.output[rows]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Requests in order of arrival; `at_s` is in seconds and never falls.

    prefixes: the prefix of every request (see Arrival), or () if the trace has none.
    """

    name: str
    at_s: Floats
    prompt: Tokens
    output: Tokens
    prefixes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Validate. Raises ValueError."""
        if not self.at_s.size == self.prompt.size == self.output.size > 0:
            raise ValueError("a trace has at least one row, and as many times as lengths")
        if len(self.prefixes) not in {0, self.at_s.size} or (np.diff(self.at_s) < 0).any():
            raise ValueError("a trace is sorted by time, with a prefix for each row or for none")

    def __len__(self) -> int:
        """Count the requests."""
        return self.at_s.size

    @property
    def total(self) -> Tokens:
        """Prompt plus output tokens of every request."""
        return self.prompt + self.output

    @property
    def rate(self) -> float:
        """Mean requests per second; infinite if all arrive at once."""
        span = float(self.at_s[-1] - self.at_s[0])
        return (len(self) - 1) / span if span else math.inf

    def workload(self) -> Workload:
        """Return the lengths without their times."""
        return equally_weighted(self.name, self.prompt, self.output)

    def arrivals(self) -> Iterator[Arrival]:
        """Yield the requests one by one."""
        columns = (self.at_s.tolist(), self.prompt.tolist(), self.output.tolist())
        for row, (at_s, prompt, output) in enumerate(zip(*columns, strict=True)):
            prefix = self.prefixes[row] if self.prefixes else ()
            yield Arrival(at_s=at_s, length=Length(prompt, output), prefix=prefix)


def weighted(name: str, prompt: Tokens, output: Tokens, weights: Floats) -> Workload:
    """Return a workload; the weights may have any sum.

    Raises ValueError if there is no row, a length below 1, or a weight that is not above 0.
    """
    if not prompt.size:
        raise ValueError(f"{name}: no request is left")
    if min(prompt.min(), output.min()) < 1 or not weights.min() > 0:
        raise ValueError(f"{name}: lengths are at least 1 token, and weights above 0")
    return Workload(name=name, prompt=prompt, output=output, weights=weights / weights.sum())


def equally_weighted(name: str, prompt: Tokens, output: Tokens) -> Workload:
    """Return a workload of equal weights. Raises ValueError as `weighted` does."""
    return weighted(name, prompt, output, np.ones(prompt.size))


def merged(workloads: Sequence[Workload], weights: Sequence[float]) -> Workload:
    """Return one workload in which each has a share of the requests in proportion to its weight.

    Raises ValueError if there is none, or a weight is not above 0.
    """
    return weighted(
        " + ".join(w.name for w in workloads),
        np.concatenate([w.prompt for w in workloads]),
        np.concatenate([w.output for w in workloads]),
        np.concatenate([w.weights * k for w, k in zip(workloads, weights, strict=True)]),
    )


def from_cdf(
    name: str, points: Sequence[tuple[int, float]], output_share: float = OUTPUT_SHARE
) -> Workload:
    """Return the workload of a distribution of totals: points of tokens and share within them.

    The points are kept exactly; between two of them the share grows with the logarithm of the
    tokens. The first bucket begins at the last point with a share of 0, else at half of the first
    point. `output_share` of every total, at least 1 token, is taken for output. Raises ValueError
    unless the points ascend from at least 1 token to a share of 1.
    """
    if not points:
        raise ValueError(f"{name}: a CDF has at least one point")
    first = [(max(1, points[0][0] // 2), 0.0)] if points[0][1] > 0 else []
    tokens = np.array([t for t, _ in (*first, *points)], dtype=np.int64)
    shares = np.array([s for _, s in (*first, *points)])
    rising = (np.diff(tokens) > 0).all() and (np.diff(shares) >= 0).all()
    if not rising or tokens[0] < 1 or shares[0] != 0 or abs(shares[-1] - 1) > 1e-9:
        raise ValueError(f"{name}: tokens rise from 1, and shares from 0 to 1")
    held = np.diff(shares) > 0
    low, high, mass = tokens[:-1][held], tokens[1:][held], np.diff(shares)[held]
    # By the logarithm, since lengths spread over decades: the median of a bucket from 512 to 1024
    # is 721, not 768.
    # The middles of equal parts of a bucket; rounded up, they stay within it.
    parts = (np.arange(_ROWS_IN_BUCKET) + 0.5) / _ROWS_IN_BUCKET
    total = np.ceil(low[:, None] * (high / low)[:, None] ** parts).astype(np.int64).ravel()
    output = np.clip(np.rint(total * output_share).astype(np.int64), 1, total - 1)
    return weighted(name, total - output, output, np.repeat(mass / _ROWS_IN_BUCKET, parts.size))


def poisson(workload: Workload, rate: float, n: int, seed: int) -> Trace:
    """Return n requests drawn from the workload, with Poisson arrivals of `rate` per second."""
    rng = np.random.default_rng(seed)
    prompt, output = workload.sample(rng, n)
    at_s = np.cumsum(rng.exponential(1 / rate, n))
    return Trace(name=workload.name, at_s=at_s, prompt=prompt, output=output)


def replay(trace: Trace, speed: float) -> Trace:
    """Return the trace, starting at time 0 and `speed` times as fast."""
    return Trace(
        name=trace.name,
        at_s=(trace.at_s - trace.at_s[0]) / speed,
        prompt=trace.prompt,
        output=trace.output,
        prefixes=trace.prefixes,
    )


def overlaid(traces: Sequence[Trace]) -> Trace:
    """Return the traces as one, with a common start."""
    at_s = np.concatenate([trace.at_s - trace.at_s[0] for trace in traces])
    order = np.argsort(at_s, kind="stable")
    prefixes = _apart(traces) if any(trace.prefixes for trace in traces) else []
    return Trace(
        name=" + ".join(trace.name for trace in traces),
        at_s=at_s[order],
        prompt=np.concatenate([trace.prompt for trace in traces])[order],
        output=np.concatenate([trace.output for trace in traces])[order],
        prefixes=tuple(prefixes[row] for row in order) if prefixes else (),
    )


def _apart(traces: Sequence[Trace]) -> list[tuple[int, ...]]:
    """Return the prefixes of all rows; the same id in two traces means different texts."""
    return [
        # Of two traces, the first gets the even ids and the second the odd ones.
        tuple(block * len(traces) + index for block in prefix)
        for index, trace in enumerate(traces)
        for prefix in trace.prefixes or [()] * len(trace)
    ]
