"""Whether what came from outside can have been written by this service.

Notes pass through Envoy, observations through a store: both are read as input from outside. What is
sound makes no later computation raise or run long.
"""

from typing import Final

from extproc.budget.category import NAME_CHARS
from extproc.budget.features import FEATURES
from extproc.budget.values import Asked, Measure, Observation, Prefix
from extproc.request.conversation import DIGEST_CHARS as PREFIX_CHARS
from extproc.request.form import Form
from extproc.request.reader import MAX_MODEL_CHARS
from extproc.request.thinking import Thinking
from extproc.routing.tenant import DIGEST_CHARS
from extproc.tokens import MAX_TOKENS

MOST_COUNT: Final = 1 << 48
_THINKING: Final = frozenset(known.value for known in Thinking)
_FORMS: Final = frozenset(known.value for known in Form)
_MOST_STOOD_FOR: Final = 1_000_000  # one of a thousand is observed, and one of a thousand learnt


def is_asked(asked: Asked) -> bool:
    """Return whether what is known of a request is in range, its tenant or none among it."""
    return (
        _is_countable(asked.measure)
        and (asked.whole is None or _is_countable(asked.whole))
        and len(asked.model) <= MAX_MODEL_CHARS
        and len(asked.category) <= NAME_CHARS
        and len(asked.tenant) in {0, DIGEST_CHARS}
        and asked.thinking in _THINKING
        and asked.form in _FORMS
        and 0 < asked.sequences <= MOST_COUNT
        and 0 < asked.share <= 1
        and 0 <= (asked.output_limit or 0) <= MOST_COUNT
        and 0 <= asked.output_floor <= MOST_COUNT
        and (asked.prefix is None or _is_prefix(asked.prefix))
    )


def is_observation(seen: Observation) -> bool:
    """Return whether what an answer teaches is in range."""
    return (
        is_asked(seen.asked)
        and 0 < seen.window <= MOST_COUNT
        and 0 <= seen.prompt_tokens <= MAX_TOKENS
        and 0 <= seen.completion_tokens <= MAX_TOKENS
        and 0 < seen.stands_for <= _MOST_STOOD_FOR
    )


def _is_prefix(prefix: Prefix) -> bool:
    return (
        len(prefix.whole) == PREFIX_CHARS
        and len(prefix.part) in {0, PREFIX_CHARS}
        and (prefix.rest is None or _is_countable(prefix.rest))
    )


def _is_countable(measure: Measure) -> bool:
    features = measure.features
    # Not a number compares as False, and makes the sum one.
    return (
        len(features) == len(FEATURES)
        and 0 <= measure.text_bytes <= MOST_COUNT
        and 0 <= measure.token_ids <= MOST_COUNT
        and 0 <= measure.doubt <= MOST_COUNT
        and 0 <= measure.counted <= MOST_COUNT
        and 0 <= measure.counted_tools <= MOST_COUNT
        and min(features) >= 0
        and sum(features) <= MOST_COUNT
        and 0 <= measure.unseen <= 1
    )
