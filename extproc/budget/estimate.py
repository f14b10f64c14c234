"""What a request is estimated to need, in tokens."""

import enum

from extproc.frozen import Frozen


class Basis(enum.StrEnum):
    """What an estimate is based on."""

    PRIOR = "prior"  # no answer of the model was seen yet
    # Too few answers of the category: based on its model, or on all. Also while the answers of the
    # model contradict what was learnt.
    BORROWED = "borrowed"
    CALIBRATED = "calibrated"


class Budget(Frozen, frozen=True):
    """Tokens to reserve for the largest sequence of a request."""

    prompt_tokens: int
    """The estimate, with the ids that were given."""
    margin_tokens: int
    """Added for the error of the estimate."""
    output_tokens: int
    basis: Basis
    expected: int | None = None
    """Tokens that the request exceeds as often as not; None: the sum of the others."""
    most: int | None = None
    """Tokens that it hardly ever exceeds; None: the sum."""
    least: int | None = None
    """What its prompt, with the output that counts, hardly ever falls below; None: the sum."""

    @property
    def tokens(self) -> int:
        """The sum, which is compared with a pool's window."""
        return self.prompt_tokens + self.margin_tokens + self.output_tokens

    @property
    def placed(self) -> int:
        """The tokens that are compared with a pool's threshold."""
        return self.tokens if self.expected is None else self.expected

    def is_near(self, window: int) -> bool:
        """Return whether the request may or may not exceed a window, so that its answer tells."""
        most = self.tokens if self.most is None else self.most
        return self.placed <= window < most

    def may_fit(self, window: int) -> bool:
        """Return whether the prompt's exact tokens may decide if the request fits a window."""
        most = self.tokens if self.most is None else self.most
        return (self.tokens if self.least is None else self.least) <= window < most
