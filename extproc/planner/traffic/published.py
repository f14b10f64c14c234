"""Published distributions of lengths: share of requests by total tokens.

Source: vllm-sr-sim 0.1.0 (arXiv 2603.16054), which derived them from the Azure LLM inference trace
of 2023 (both services together) and from LMSYS-Chat-1M, and constructed the one for agents.
"""

from typing import Final

Cdf = tuple[tuple[int, float], ...]

_TOKENS: Final = (64, 128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384,
                  24576, 32768, 49152, 65536)  # fmt: skip
# Six digits: with five, the authors' planner sizes one fleet of its tables one instance larger.
_AZURE: Final = (.008373, .028171, .067589, .288629, .364272, .40447, .656874, .779847, .868654,
                 .898208, .975803, .999965, .999965, 1)  # fmt: skip
_LMSYS: Final = (.131439, .235947, .382477, .638327, .757983, .830662, .90886, .948285, .972866,
                 .983742, .992885, .996531, .998633, .999265, .999656, .999794, .999839,
          1)  # fmt: skip
_AGENTS: Final = (0, 0, .00007, .00407, .02237, .05757, .15871, .26459, .43163, .53802, .65987,
                  .74042, .85213, .91717, .97282, .99046, .99849, 1)  # fmt: skip


def _cdf(shares: tuple[float, ...]) -> Cdf:
    return tuple(zip(_TOKENS, shares, strict=False))


AZURE_2023: Final = _cdf(_AZURE)
LMSYS: Final = _cdf(_LMSYS)
AGENTS: Final = _cdf(_AGENTS)


def scaled(cdf: Cdf, divisor: int) -> Cdf:
    """Return the distribution with all lengths divided by `divisor`."""
    return tuple((tokens // divisor, share) for tokens, share in cdf)
