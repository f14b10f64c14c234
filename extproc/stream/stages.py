"""What all streams share."""

from collections.abc import Callable
from dataclasses import dataclass, field

from extproc.budget.learner import Learner
from extproc.budget.values import Observation
from extproc.response.reader import Usage
from extproc.routing.load.spill import Spill
from extproc.routing.plain import PlainRouter
from extproc.routing.pools import Pool, Reason
from extproc.routing.route import Routed, Rules
from extproc.routing.sticky import StickyPools
from extproc.stream.buffered import Wanted
from extproc.stream.decision import Noted, decision_headers, shadow_headers
from extproc.stream.metrics import Metrics
from extproc.stream.plain_replies import PlainReplies
from extproc.stream.sampling import Sampling
from extproc.stream.usage_asking import UsageAsking

_OF_REQUESTS = (":method", ":path", "content-encoding", "content-length")
_OF_ANSWERS = (":status", "content-encoding", "content-type")

OnDecided = Callable[[str, Reason, Callable[[], Routed]], None]
"""Takes the pool and the reason of a decision, and what returns all of it."""
OnSpent = Callable[[Noted, Pool, Usage], None]
"""Takes the record of a decision, the pool that answered, and the tokens of its answer."""


@dataclass(frozen=True)
class Stages:
    """What all exchanges share."""

    rules: Rules
    learner: Learner
    learn: Callable[[Observation], None]
    """Takes observations: the learner's own `learn`, or one that also tells other processes."""
    metrics: Metrics
    clock: Callable[[], float]
    """Returns seconds, monotonic."""
    draw: Callable[[], float]
    """Returns a new random number from 0 to 1."""
    sampling: Sampling
    usage_asking: UsageAsking = field(default_factory=UsageAsking)
    is_late: Callable[[], bool] = lambda: False
    """Returns whether requests wait so long that only their size can decide in time."""
    decided: OnDecided = lambda *_: None
    """Is told each decision."""
    spent: OnSpent = lambda *_: None
    """Is told each usage that is observed."""
    spill: Spill | None = None
    """Moves requests between pools by their load; None: nothing does."""
    sticky_pools: StickyPools | None = None
    """The pools of conversations; None: each request is decided by itself."""

    header_names: frozenset[str] = field(init=False)
    """The headers of requests and answers that are read."""
    wanted: Wanted = field(init=False)
    """Those of requests."""
    reads_turns: bool = field(init=False)
    """Whether the beginnings of conversations are told."""
    plain_router: PlainRouter | None = field(init=False)
    """Decides most requests; None if the rules let more than a text decide."""
    headers: Callable[[Routed], dict[str, str]] = field(init=False)
    """Returns the headers that tell a decision."""
    replies: PlainReplies = field(init=False)
    """Encodes replies with such headers."""

    def __post_init__(self) -> None:
        names = _request_names(self.rules)
        headers = shadow_headers if self.rules.is_shadow else decision_headers
        # Not when they are first needed: compiled classes have no cached properties.
        derived: dict[str, object] = {
            "header_names": frozenset({*names, *_OF_ANSWERS}),
            "wanted": Wanted(names),
            "reads_turns": self.rules.reads_turns,
            "plain_router": None if self.spill else PlainRouter.of(self.rules),
            "headers": headers,
            "replies": PlainReplies(headers),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)


def _request_names(rules: Rules) -> set[str]:
    tenants, sticky = rules.tenants, rules.sticky
    named = (
        rules.category_header,
        tenants.header if tenants else "",
        sticky.header if sticky else "",
    )
    return {*_OF_REQUESTS, *filter(None, named)}
