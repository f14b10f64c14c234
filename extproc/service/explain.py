"""The decision for one request body, and the figures behind it: `dualpool explain`, the page."""

from dataclasses import dataclass

from extproc.budget.category import content_class
from extproc.budget.learner import Learner, name_category
from extproc.build import build_learner, build_rules
from extproc.config.settings import Settings
from extproc.request.reader import Endpoint, UnreadableRequest, read_request
from extproc.routing.route import Routed, Rules, route, route_unread


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision for a body."""

    pool: str
    """Empty if Envoy chooses it."""
    reason: str
    api: str
    """The API whose body it was read as: `chat`, `completion`, `responses` ..."""
    form: str
    """What the request demands of its answer: `shaped`, `stops`, or nothing."""
    category: str
    content_class: str
    text_bytes: int
    token_ids: int
    counted_tokens: int
    """Tokens of the text by the model's tokenizer; 0 if they were estimated."""
    bytes_per_token: float
    """Text bytes divided by estimated tokens, without the margin."""
    prompt_tokens: int
    margin_tokens: int
    output_tokens: int
    budget_tokens: int
    placed_tokens: int
    """What is compared with a threshold."""
    basis: str
    unreadable: str
    """Why the body could not be read; empty if it could."""


def explain(body: bytes, kind: Endpoint, settings: Settings) -> Explanation:
    """Decide as the service does for its first request."""
    return explain_by(body, kind, build_rules(settings), build_learner(settings))


def explain_by(body: bytes, kind: Endpoint, rules: Rules, learner: Learner) -> Explanation:
    """Decide as a service does that has learnt what the learner has."""
    try:
        request = read_request(kind, body, max_bytes=rules.max_body_bytes)
    except UnreadableRequest as error:
        unread = route_unread(rules)
        return _explanation(unread, api=kind.value, form="", kind="", unreadable=error.reason.value)
    routed = route(request, "", learner, rules)
    text_class = content_class(routed.asked.measure.features).value if routed.pool else ""
    form = request.form.value
    return _explanation(routed, api=kind.value, form=form, kind=text_class, unreadable="")


def describe(explanation: Explanation) -> str:
    """Return the explanation as lines of text."""
    e = explanation
    counted = f", {e.counted_tokens} tokens counted" if e.counted_tokens else ""
    form = f", form {e.form}" if e.form else ""
    if e.unreadable:
        told = f"pool {e.pool}, the largest" if e.pool else "no pool, as its row is not known"
        return f"unreadable ({e.unreadable}): {told}"
    if not e.pool:
        return "no row of pools has its model: unlisted"
    return "\n".join(
        [
            f"api        {e.api}",
            f"class      {e.content_class}, category {e.category}",
            f"text       {e.text_bytes} bytes, {e.token_ids} token ids{counted}",
            f"ratio      {e.bytes_per_token:.2f} bytes per token ({e.basis})",
            f"prompt     {e.prompt_tokens} tokens, margin {e.margin_tokens}",
            f"output     {e.output_tokens} tokens{form}",
            f"budget     {e.budget_tokens} tokens",
            f"pool       {e.pool} ({e.reason})",
        ]
    )


def _explanation(routed: Routed, *, api: str, form: str, kind: str, unreadable: str) -> Explanation:
    budget, measure = routed.budget, routed.asked.measure
    text_tokens = budget.prompt_tokens - measure.token_ids
    return Explanation(
        pool=routed.pool,
        reason=routed.reason.value,
        api=api,
        form=form,
        category=name_category(routed.asked) if kind else "",
        content_class=kind,
        text_bytes=measure.text_bytes,
        token_ids=measure.token_ids,
        counted_tokens=measure.counted,
        bytes_per_token=measure.text_bytes / text_tokens if text_tokens else 0.0,
        prompt_tokens=budget.prompt_tokens,
        margin_tokens=budget.margin_tokens,
        output_tokens=budget.output_tokens,
        budget_tokens=budget.tokens,
        placed_tokens=budget.placed,
        basis=budget.basis.value,
        unreadable=unreadable,
    )
