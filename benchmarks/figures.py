"""The measured values of the forms."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Self

from benchmarks.rig import LoadCost


@dataclass(frozen=True, slots=True)
class RoundFigures:
    """One row of a table in one round; all figures are per request.

    messages: gRPC messages in both directions. p50_ms, p99_ms: from the pool's write of a chunk to
    the client's read of it, or from a request to the end of its answer. envoy_ms, service_ms: CPU
    time.
    """

    messages: float
    p50_ms: float
    p99_ms: float
    envoy_ms: float
    service_ms: float

    @classmethod
    def of(cls, times_ms: Sequence[float], spent: LoadCost, requests: int) -> Self:
        """Compute the row of a round."""
        cuts = quantiles(times_ms, n=100, method="inclusive")
        return cls(
            messages=spent.messages / requests,
            p50_ms=cuts[49],
            p99_ms=cuts[98],
            envoy_ms=spent.envoy_s * 1000 / requests,
            service_ms=spent.service_s * 1000 / requests,
        )


@dataclass(frozen=True, slots=True)
class FormFigures:
    """All rounds of all forms: of answers by name, of requests by size in bytes, then by name."""

    streams: dict[str, list[RoundFigures]]
    requests: dict[int, dict[str, list[RoundFigures]]]
