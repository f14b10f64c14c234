"""Token counts: the largest that is believed, and the tokens that a sequence needs."""

from typing import Final

MAX_TOKENS: Final = 2**31 - 1
"""The largest count of tokens that is believed, in a request or in an answer."""


def needed_tokens(prompt_tokens: int, output_limit: int | None, completion_tokens: int) -> int:
    """Return the tokens of a window that one sequence needs: its prompt plus its output.

    The output is the stated limit, which counts in full: vLLM up to 0.20 refuses what could exceed
    the window. Without a limit (None) it is what was generated.

    >>> needed_tokens(100, 16, 5)
    116
    >>> needed_tokens(100, None, 5)
    105
    """
    return prompt_tokens + (completion_tokens if output_limit is None else output_limit)
