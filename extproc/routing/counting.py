"""Count the texts of a prompt by the model's own tokenizer, where the estimate leaves a pool open.

To count takes thirty times as long as to estimate, so that only requests are counted whose pool
depends on it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import structs

from extproc.budget.values import Asked
from extproc.request.reader import Request


class Countable(NamedTuple):
    """The texts of a prompt, and those of them that define tools."""

    texts: Sequence[str]
    definitions: Sequence[str] = ()


def countable(request: Request, asked: Asked, most_bytes: int) -> Countable | None:
    """Return the texts of a prompt of at most so many bytes; None if it is more than texts.

    What a model makes of media, and which optional texts a template renders, no text shows.
    """
    prompt = request.prompts.largest
    if request.prompts.count > 1 or not 0 < prompt.text_bytes <= most_bytes:
        return None
    if prompt.has_media or prompt.optional:
        return None
    # After a known beginning only the rest is estimated.
    return None if asked.resumes else Countable(prompt.texts, prompt.definitions)


def counted(asked: Asked, texts: Countable, count: Callable[[str], int]) -> Asked:
    """Return the request with the tokens of its texts."""
    tokens = tools = 0
    definitions = Counter(texts.definitions)
    for text in texts.texts:
        found = count(text)
        tokens += found
        if definitions[text]:  # a message may have the text of a definition too
            definitions[text] -= 1
            tools += found
    known = structs.replace(asked.measure, counted=tokens, counted_tools=tools)
    return structs.replace(asked, measure=known)
