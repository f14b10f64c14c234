"""What routing needs of a request, or why it could not be read."""

import enum

import msgspec

from extproc.request.form import Form
from extproc.request.prompts import Prompts
from extproc.request.thinking import Thinking


class Unreadable(enum.Enum):
    """Why a body could not be read."""

    ENCODING = "encoding"  # unknown content encoding, or corrupt or truncated data
    TOO_LARGE = "too_large"  # in bytes, or in JSON values
    DEPTH = "depth"  # nested too deeply
    JSON = "json"  # not JSON; NaN and lone surrogates are invalid
    SHAPE = "shape"  # not an object, or the prompt that the pool sees is not all in it
    EMPTY = "empty"


class UnreadableRequest(Exception):  # noqa: N818 - the client's fault, not an error of ours
    """A body that cannot be read; `reason` says why."""

    def __init__(self, reason: Unreadable) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the body of a request says about its tokens."""

    model: str
    """As the client wrote it; a name over MAX_MODEL_CHARS ends in a digest of it. "" if absent."""
    prompts: Prompts
    token_bound: int | None
    """No prompt of the body has more tokens. None if the body does not show it: media, a
    chat template of its own."""
    max_tokens: int | None
    """The output limit of one sequence; None if there is none, or none that a pool accepts."""
    min_tokens: int
    """The least output of one sequence; 0 if none is stated, or none that a pool accepts."""
    outputs: int
    """How many sequences are generated for each prompt, at least 1."""
    usage_unstated: bool
    """Whether the answer is a stream that will not state its usage, only because the request does
    not say whether it should."""
    generates: bool
    """Whether the answer has output tokens."""
    truncates: bool
    """Whether the pool may cut the prompt before it counts it."""
    stored: bool
    """Whether a pool that stores answers keeps this one, so that later requests need that pool."""
    background: bool
    """Whether the answer is fetched by later requests, which only a pool that stores can do."""
    thinking: Thinking = Thinking.UNSTATED
    """How long the model is to think before it answers."""
    form: Form = Form.FREE
    """What form the answer must have."""
    user: str = ""
    """Whom the client names as its own user; "" if it names none."""

    @property
    def output_limit(self) -> int | None:
        """Output tokens of one sequence at most; 0 if none are generated, None if not limited."""
        return self.max_tokens if self.generates else 0

    @property
    def sequences(self) -> int:
        """Sequences of the whole answer."""
        return self.prompts.count * self.outputs
