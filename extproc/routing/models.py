"""What the operator states of models, by their names: what no request shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class ModelRule:
    """What is known of the models whose names match a pattern."""

    name: str
    """A pattern of whole names: `*` stands for any characters, `?` for one, `[ab]` for a or b."""
    max_pixels: int = 0
    """The area to which the model shrinks larger images; 0 if unknown."""
    image_tokens: int = 0
    """The tokens of every image; 0 if they are unknown or differ."""
    drops: frozenset[str] = frozenset()
    """The names of features.OPTIONAL_FEATURES that the chat template never renders."""
    count: Callable[[str], int] | None = None
    """Counts the tokens of a text by the model's own tokenizer; None if it is not configured."""


_UNKNOWN = ModelRule("*")


def find_rule(model: str, rules: Sequence[ModelRule]) -> ModelRule:
    """Return the first rule whose pattern matches the name of a model."""
    if not rules:
        return _UNKNOWN
    return next((rule for rule in rules if fnmatchcase(model, rule.name)), _UNKNOWN)
