"""Count a short plain text by the model's own tokenizer, where the estimate leaves a pool open.

To count takes thirty times as long as to estimate, so that only requests are counted whose pool
depends on it.
"""

from collections.abc import Callable, Sequence

from msgspec import structs

from extproc.budget.values import Asked
from extproc.request.reader import Request


def plain_texts(request: Request, asked: Asked, most_bytes: int) -> Sequence[str]:
    """Return the texts of a prompt that is nothing else, of at most so many bytes; or none.

    What a template renders of tools, and what a model makes of media, the body does not show.
    """
    prompt = request.prompts.largest
    if request.prompts.count > 1 or prompt.text_bytes > most_bytes:
        return ()
    if prompt.tools or prompt.images or prompt.audios or prompt.videos or prompt.optional:
        return ()
    # After a known beginning only the rest is estimated.
    return () if asked.resumes else prompt.texts


def counted(asked: Asked, texts: Sequence[str], count: Callable[[str], int]) -> Asked:
    """Return the request with the tokens of its texts."""
    tokens = sum(map(count, texts))
    return structs.replace(asked, measure=structs.replace(asked.measure, counted=tokens))
