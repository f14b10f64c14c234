"""The requests of a trace as they arrive at a simulated fleet, in order of time."""

from collections.abc import Iterator
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np

from extproc.budget.category import content_class
from extproc.budget.values import Asked, Measure
from extproc.planner.traffic.lengths import Tokens, Trace
from extproc.planner.traffic.texts import STATED, state_limits, write_prompts
from extproc.tokens import needed_tokens

_NS_PER_S: Final = 1e9
_MODEL: Final = "simulated"
_UNREAD: Final = Asked(_MODEL, "", Measure(0), None)


class Incoming(NamedTuple):
    """A request of one sequence as it arrives, with the lengths that the service cannot see."""

    at_ns: int
    prompt_tokens: int
    output_tokens: int
    """The length of the answer if no limit cuts it."""
    max_tokens: int
    """The output limit that the client states; 0: none."""
    asked: Asked
    """What the service sees of it."""
    prefix: tuple[int, ...] = ()

    @property
    def wanted_tokens(self) -> int:
        """Output tokens that a pool without a window would generate."""
        return min(self.output_tokens, self.max_tokens or self.output_tokens)

    @property
    def needed_tokens(self) -> int:
        """Tokens of a window that the request needs, as the service judges it."""
        limit = self.max_tokens or None
        return needed_tokens(self.prompt_tokens, limit, self.output_tokens)


def draw_limits(trace: Trace, seed: int, stated: float = STATED) -> Tokens:
    """Draw the limits that clients state, 0 for none; `stated`: the share that states one."""
    return state_limits(trace.output, stated, seed)


def arrive(
    trace: Trace, max_tokens: Tokens, seed: int, *, texts: bool = True
) -> Iterator[Incoming]:
    """Yield the requests; the seed decides their texts.

    texts: whether their rule reads any. Otherwise all have the same, in a fifth of the time.
    """
    columns = zip(
        # Whole nanoseconds: the engine's time is an integer, so that no rounding accumulates.
        np.rint(trace.at_s * _NS_PER_S).astype(np.int64).tolist(),
        trace.prompt.tolist(),
        trace.output.tolist(),
        max_tokens.tolist(),
        write_prompts(trace.prompt, seed) if texts else repeat(None, len(trace)),
        trace.prefixes or ((),) * len(trace),
        strict=True,
    )
    for at_ns, prompt, output, limit, measure, prefix in columns:
        yield Incoming(at_ns, prompt, output, limit, _ask(measure, limit), prefix)


def _ask(measure: Measure | None, limit: int) -> Asked:
    if measure is None:
        return _UNREAD
    return Asked(_MODEL, content_class(measure.features).value, measure, limit or None)
