"""Prompts of prose, as long as a test asks."""

from functools import cache
from itertools import cycle, islice

from extproc.budget.measure import measure
from extproc.budget.values import Measure

_WORDS = b"the pool that is chosen holds the prompt and what is answered ".split()


@cache
def prose(words: int) -> Measure:
    """Measure a message of so many words."""
    text = b" ".join(islice(cycle(_WORDS), words))
    return measure(text, len(text), messages=1)
