"""What requests look like: how many tokens, and when they come.

A Workload is a weighted sample of lengths, a Trace lengths with their arrival times. Both are
values: no function changes one, and what is drawn is a function of its seed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
Floats = NDArray[np.float64]

OUTPUT_SHARE: Final = 0.2
"""Output tokens as a share of the total where only totals are known, as in arXiv 2603.16054."""
_ROWS_IN_BUCKET: Final = 64


class InputError(Exception):
    """An input cannot be used; the text is `file:row: what is wrong; what is allowed`."""

    def __init__(self, file: str, row: int, text: str) -> None:
        """`row` counts lines of the file from 1; 0 where the whole file is meant."""
        super().__init__(f"{file}:{row}: {text}" if row else f"{file}: {text}")


class Length(NamedTuple):
    """Tokens of one request, both at least 1."""

    prompt: int
    output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request of a trace.

    at_s: seconds from the start of the trace. max_tokens: the output limit that the client
    states. category: of the text. prefix: ids of the prompt's leading blocks of 512 tokens, equal
    where the text is equal up to there; () where the trace has none.
    """

    at_s: float
    length: Length
    max_tokens: int | None = None
    category: str = ""
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """A weighted sample of lengths: rows of prompt and output tokens, both at least 1.

    The weights sum to 1. Make one with `equally_weighted`, `weighted` or `from_cdf`, which check.
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
        """Prompt and output tokens of every row together."""
        return self.prompt + self.output

    def share_within(self, tokens: float) -> float:
        """Return the share of requests whose total is at most `tokens`: the paper's alpha."""
        within = self.total <= tokens
        # All weights together may miss 1 by rounding, and 1 means that there is no other side.
        return 1.0 if within.all() else float(self.weights[within].sum())

    def between(self, above: float, up_to: float) -> "Workload":
        """Return the requests with above < total <= up_to. Raises ValueError if there are none."""
        inside = (self.total > above) & (self.total <= up_to)
        return weighted(self.name, self.prompt[inside], self.output[inside], self.weights[inside])

    def split(self, threshold: int) -> tuple["Workload", "Workload"]:
        """Return the requests within the threshold, and those over it.

        Raises ValueError where one side is empty: ask `share_within` first.
        """
        return self.between(0, threshold), self.between(threshold, math.inf)

    def mean(self, values: Tokens | Floats) -> float:
        """Return the mean of one value a row, such as `workload.total`."""
        return float(self.weights @ values)

    def scv(self, values: Tokens | Floats) -> float:
        """Return the squared coefficient of variation of one value a row: variance / mean**2."""
        mean = self.mean(values)
        deviations = np.asarray(values, dtype=np.float64) - mean
        return self.mean(deviations**2) / mean**2

    def quantile(self, values: Tokens | Floats, q: float) -> float:
        """Return the smallest of the values that a share q, of (0, 1], of requests stays within."""
        order = np.argsort(values, kind="stable")
        # The sum of many weights misses 1 by some 1e-12.
        at = int(np.searchsorted(np.cumsum(self.weights[order]), q - 1e-9))
        return float(values[order[min(at, len(self) - 1)]])

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        """Draw the prompt and the output tokens of n requests, with replacement."""
        edges = np.cumsum(self.weights)
        rows = np.searchsorted(edges, rng.random(n) * edges[-1], side="right")
        return self.prompt[rows], self.output[rows]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Requests in the order of their arrival; `at_s` is in seconds and never falls.

    prefixes: the prefix of every request (see Arrival), or () where the trace has none.
    """

    name: str
    at_s: Floats
    prompt: Tokens
    output: Tokens
    prefixes: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse rows out of order, or of different number."""
        if not self.at_s.size == self.prompt.size == self.output.size > 0:
            raise ValueError("a trace has at least one row, and as many times as lengths")
        if len(self.prefixes) not in {0, self.at_s.size} or (np.diff(self.at_s) < 0).any():
            raise ValueError("a trace is sorted by time, with a prefix for each row or for none")

    def __len__(self) -> int:
        """Count the requests."""
        return self.at_s.size

    @property
    def total(self) -> Tokens:
        """Prompt and output tokens of every request together."""
        return self.prompt + self.output

    @property
    def rate(self) -> float:
        """Mean requests a second; infinite where all come at once."""
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
    """Return a workload of rows that count for their weights, of any sum.

    Raises ValueError where there is no row, a length below 1, or a weight that is not above 0.
    """
    if not prompt.size:
        raise ValueError(f"{name}: no request is left")
    if min(prompt.min(), output.min()) < 1 or not weights.min() > 0:
        raise ValueError(f"{name}: lengths are at least 1 token, and weights above 0")
    return Workload(name=name, prompt=prompt, output=output, weights=weights / weights.sum())


def equally_weighted(name: str, prompt: Tokens, output: Tokens) -> Workload:
    """Return a workload of rows that count the same. Raises ValueError as `weighted` does."""
    return weighted(name, prompt, output, np.ones(prompt.size))


def merged(workloads: Sequence[Workload], weights: Sequence[float]) -> Workload:
    """Return one workload, to which each of them gives requests in proportion to its weight.

    Raises ValueError where there is none, or a weight is not above 0.
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
    """Return the workload of a distribution of totals: (tokens, share of requests within them).

    Between two points the share grows with the logarithm of the tokens, and all points are kept
    exactly; requests are above the last point with a share of 0, or above half of the first point.
    A CDF does not tell prompt from output: `output_share` of every total, at least 1 token, is
    taken for output. Raises ValueError where the points do not rise from 1 token or more, to a
    share of 1.
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
    # The middles of _ROWS_IN_BUCKET equal parts of the bucket; rounded up, they stay within it.
    parts = (np.arange(_ROWS_IN_BUCKET) + 0.5) / _ROWS_IN_BUCKET
    total = np.ceil(low[:, None] * (high / low)[:, None] ** parts).astype(np.int64).ravel()
    output = np.clip(np.rint(total * output_share).astype(np.int64), 1, total - 1)
    return weighted(name, total - output, output, np.repeat(mass / _ROWS_IN_BUCKET, parts.size))


def poisson(workload: Workload, rate: float, n: int, seed: int) -> Trace:
    """Return n requests drawn from the workload, `rate` a second, at times of their own."""
    rng = np.random.default_rng(seed)
    prompt, output = workload.sample(rng, n)
    at_s = np.cumsum(rng.exponential(1 / rate, n))
    return Trace(name=workload.name, at_s=at_s, prompt=prompt, output=output)


def replay(trace: Trace, speed: float) -> Trace:
    """Return the trace from time 0 on, `speed` times as fast, with its bursts."""
    return Trace(
        name=trace.name,
        at_s=(trace.at_s - trace.at_s[0]) / speed,
        prompt=trace.prompt,
        output=trace.output,
        prefixes=trace.prefixes,
    )


def overlaid(traces: Sequence[Trace]) -> Trace:
    """Return the traces as one, as if they had begun together."""
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
    """Return the prefixes of all rows; the same id in two traces is not the same text."""
    return [
        tuple(block * len(traces) + index for block in prefix)
        for index, trace in enumerate(traces)
        for prefix in trace.prefixes or [()] * len(trace)
    ]
