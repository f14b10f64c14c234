"""What estimators see of a request: its prompts measured, its limit and its sequences."""

from dataclasses import replace
from typing import Final

from extproc.budget.category import apart, content_class
from extproc.budget.measure import add, measure, prior_tokens, prior_total, with_optional
from extproc.budget.values import Asked, Measure
from extproc.request.prompts import VIDEO_FRAMES, Prompt
from extproc.request.reader import Request

_MOST_UNSIZED: Final = 1 << 15  # media of unknown size that are counted: bounds the time


def ask(
    request: Request, category: str = "", tenant: str = "", *, limit_is_hint: bool = False
) -> Asked:
    """Build the estimator's view of a request; the default category is the class of its content."""
    prompts = request.prompts
    largest = max(map(_measure, prompts.candidates), key=prior_total)
    whole = None
    if prompts.own and prompts.shared:
        shared = _measure(prompts.shared, prompts=0)
        whole = add(_measure(prompts.own, prompts.count), shared, prompts.count)
    return Asked(
        model=apart(request.model),
        category=category or content_class(largest.features).value,
        measure=largest,
        output_limit=request.max_tokens if request.generates else 0,
        output_floor=request.min_tokens,
        sequences=request.sequences,
        whole=whole,
        share=min(prior_total(largest) / prior_total(whole), 1.0) if whole else 1.0,
        tenant=tenant,
        limit_is_hint=limit_is_hint,
    )


def is_answered(asked: Asked, completion_tokens: int) -> bool:
    """Return whether an answer has output, or none was asked for, as of embeddings.

    The prompt of any other answer may have been cut before it was counted.
    """
    return completion_tokens > 0 or asked.output_limit == 0


def _measure(prompt: Prompt, prompts: int = 1) -> Measure:
    # Audio counts as one image of unknown size, a video as VIDEO_FRAMES of them.
    unsized = min(prompt.audios + VIDEO_FRAMES * prompt.videos, _MOST_UNSIZED)
    images = [(image.width, image.height) for image in prompt.images]
    found = measure(
        prompt.sample,
        prompt.text_bytes,
        prompts=prompts,
        messages=prompt.messages,
        tools=prompt.tools,
        images=images + [(0, 0)] * unsized,
    )
    optional = {kind.value: prior_tokens(*text) for kind, text in prompt.optional.items()}
    return with_optional(replace(found, token_ids=prompt.token_ids), optional)
