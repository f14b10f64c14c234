"""Take the part of a prompt that earlier answers have counted as known, and estimate the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from extproc.budget.features import TEMPLATE_FEATURES
from extproc.budget.values import Asked, Measure, Prefix, Recalled
from extproc.request.conversation import Beginning, Conversation
from extproc.request.reader import Request
from extproc.routing.ask import measure_prompt
from extproc.routing.models import ModelRule, find_rule

_ANY_TOOL: Final = TEMPLATE_FEATURES.index("any_tool")


@dataclass(frozen=True, slots=True)
class Trail:
    """The beginnings of a conversation, the whole first, and how to measure what follows one."""

    conversation: Conversation
    beginnings: Sequence[Beginning]
    rule: ModelRule

    def rest(self, turns: int) -> Measure:
        """Measure what follows so many turns."""
        found = measure_prompt(self.rule, self.conversation.read_rest(turns), prompts=0)
        # What a template says of tools once belongs to the beginning.
        features = list(found.features)
        features[_ANY_TOOL] = 0.0
        return structs.replace(found, features=tuple(features))


def find_trail(
    request: Request, asked: Asked, key: bytes, models: Sequence[ModelRule] = ()
) -> Trail | None:
    """Return the beginnings of a prompt that was read with its turns; None if it has none.

    Those of different tenants and models never have equal digests.
    """
    conversation = request.prompts.conversation
    if conversation is None:
        return None
    of = asked.tenant, request.model, asked.thinking
    beginnings = conversation.beginnings(key, of)
    return Trail(conversation, beginnings, find_rule(request.model, models)) if beginnings else None


def resume(asked: Asked, trail: Trail, recall: Callable[[str], Recalled | None]) -> Asked:
    """Return the request with the tokens of its longest known beginning given."""
    whole, *parts = trail.beginnings
    for turns, digest in trail.beginnings:
        if recalled := recall(digest):
            return _resume(asked, trail, Prefix(whole.digest, digest), turns, recalled)
    instructions = trail.conversation.instructions
    shared = next((digest for turns, digest in parts if turns == instructions), "")
    return structs.replace(asked, prefix=Prefix(whole.digest, shared))


def _resume(asked: Asked, trail: Trail, prefix: Prefix, turns: int, recalled: Recalled) -> Asked:
    rest = trail.rest(turns)
    if not recalled.is_known:
        return structs.replace(asked, prefix=structs.replace(prefix, rest=rest))
    given = rest.token_ids + round(recalled.tokens)
    rest = structs.replace(
        rest,
        text_bytes=asked.measure.text_bytes,
        token_ids=given,
        doubt=round(recalled.deviation, 1),
    )
    return structs.replace(asked, measure=rest, prefix=structs.replace(prefix, known=True))
