"""What estimators see of a request: its prompts measured, its limit and its sequences."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter

from msgspec import structs

from extproc.budget.category import content_class, escape_reserved
from extproc.budget.features import NO_MEDIA
from extproc.budget.measure import (
    add,
    measure,
    measure_media,
    prior_tokens,
    prior_total,
    with_optional,
)
from extproc.budget.values import Asked, Measure
from extproc.request.prompt import Prompt
from extproc.request.reader import Request
from extproc.routing.models import ModelRule, find_rule


def by_prior(model: str, tenant: str, measure: Measure) -> float:  # noqa: ARG001
    """Return the tokens of a prompt before anything is learnt of any model."""
    return prior_total(measure)


def ask(
    request: Request,
    category: str = "",
    tenant: str = "",
    models: Sequence[ModelRule] = (),
    weigh: Callable[[str, str, Measure], float] = by_prior,
    *,
    limit_is_hint: bool = False,
) -> Asked:
    """Build the estimator's view of a request; the default category is the class of its content.

    Of several prompts, `weigh` tells the tokens that one of a model and a tenant is expected to
    have, and so which is the largest.
    """
    prompts, rule = request.prompts, find_rule(request.model, models)
    model = escape_reserved(request.model)
    first, *others = prompts.candidates
    largest, whole, share = measure_prompt(rule, first), None, 1.0
    if prompts.own and prompts.shared:
        expect = partial(weigh, model, tenant)
        every = (largest, *(measure_prompt(rule, other) for other in others))
        tokens, largest = max(((expect(each), each) for each in every), key=itemgetter(0))
        shared = measure_prompt(rule, prompts.shared, prompts=0)
        whole = add(measure_prompt(rule, prompts.own, prompts.count), shared, prompts.count)
        share = min(tokens / expect(whole), 1.0)
    return Asked(
        model=model,
        category=category or content_class(largest.features).value,
        measure=largest,
        output_limit=request.output_limit,
        output_floor=request.min_tokens,
        sequences=request.sequences,
        whole=whole,
        share=share,
        tenant=tenant,
        limit_is_hint=limit_is_hint,
        thinking=request.thinking.value,
        form=request.form.value,
    )


def is_answered(asked: Asked, completion_tokens: int) -> bool:
    """Return whether an answer has output, or none was asked for, as of embeddings.

    The prompt of any other answer may have been cut before it was counted.
    """
    return completion_tokens > 0 or asked.output_limit == 0


def measure_prompt(rule: ModelRule, prompt: Prompt, prompts: int = 1) -> Measure:
    """Measure a prompt of a model, or what so many prompts have of their own."""
    found = measure(
        prompt.sample,
        prompt.text_bytes,
        prompts=prompts,
        messages=prompt.messages,
        tools=prompt.tools,
        media=_media(rule, prompt) if prompt.has_media else NO_MEDIA,
    )
    exact = prompt.token_ids + rule.image_tokens * len(prompt.images)
    if exact:
        found = structs.replace(found, token_ids=exact)
    if not prompt.optional:
        return found
    optional = {
        kind.value: prior_tokens(*text)
        for kind, text in prompt.optional.items()
        if kind.value not in rule.drops
    }
    return with_optional(found, optional)


def _media(rule: ModelRule, prompt: Prompt) -> tuple[float, ...]:
    stated = len(prompt.images) if rule.image_tokens else 0
    return measure_media(
        () if stated else [(image.width, image.height) for image in prompt.images],
        max_pixels=rule.max_pixels,
        stated=stated,
        audios=prompt.audios,
        videos=prompt.videos,
    )
