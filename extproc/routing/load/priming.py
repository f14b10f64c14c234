"""Learn the tokenizers of models from what their servers count, before the first answer.

Servers of vLLM count a prompt at `/tokenize`. They are asked about the conversations of
`samples.jsonl`: kinds of text and scripts, then several turns, then tools. What they count teaches
as the prompt of an answer does, and nothing of outputs.

A name whose first counts are all equal to those of a name before it has the same tokenizer and
template, as aliases and adapters do, and is asked no more.

Invariant: a name is counted by one server at a time, and once; it is one of the largest pool that
serves the name, to which a request goes in doubt. Counts that no known tokenizer resembles teach
nothing.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pkgutil import get_data
from typing import Annotated, Final, cast

import msgspec
from msgspec import Meta, structs

from extproc.budget.category import escape_reserved
from extproc.budget.families import PROBATION, mean_oddity
from extproc.budget.prior import MEASURED
from extproc.budget.values import Asked, Observation, Outcome
from extproc.budget.weights import TokenWeights
from extproc.request.apis import Endpoint
from extproc.request.reader import read_request
from extproc.routing.ask import ask
from extproc.routing.load.discovery import Discovery
from extproc.routing.pools import Pool
from extproc.tokens import MAX_TOKENS

MOST_PRIMED: Final = 1024
"""The names that are looked at; further ones learn from answers alone."""
MOST_MISSED: Final = 5
"""The questions in a row that a server leaves without a count until the name is left to others."""
LEAST: Final = 0.85
"""Of the tokens that the prior expects of all samples; ten tokenizers count .99 to 1.37 of them."""
MOST_ODD: Final = 2.0
"""The mean oddity of the counts by the prior; the most of ten tokenizers is 1.44."""

_Server = tuple[str, Hashable]
"""A pool, and a server of it."""


class _Counted(msgspec.Struct, gc=False):
    count: Annotated[int, Meta(gt=0, le=MAX_TOKENS)]


_DECODER: Final = msgspec.json.Decoder(_Counted)


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation to count: the fields of a body beside its model, and how it is estimated."""

    body: Mapping[str, object]
    asked: Asked


@cache
def samples() -> tuple[Sample, ...]:
    """Return the samples, those that tell tokenizers apart first."""
    lines = cast("bytes", get_data("extproc.routing.load", "samples.jsonl")).splitlines()
    return tuple(
        Sample(msgspec.json.decode(line), ask(read_request(Endpoint.CHAT, line))) for line in lines
    )


@dataclass(slots=True)
class _Name:
    """A name that a server is asked about, and what it has counted so far."""

    name: str
    counts: list[int] = field(default_factory=list)


class Priming:
    """Says what to ask each server, and teaches what they count."""

    def __init__(
        self,
        discovery: Discovery,
        row: Callable[[str], Sequence[Pool]],
        knows: Callable[[str], bool],
        teach: Callable[[Observation], None],
    ) -> None:
        """`row` returns the pools of a model, and `knows` tells whether it needs no counts."""
        self._discovery, self._row, self._knows, self._teach = discovery, row, knows, teach
        self._asking: dict[_Server, _Name] = {}
        self._missed: dict[_Server, int] = {}
        self._left: dict[_Server, str] = {}  # the last name that a server did not count
        self._idle: dict[_Server, int] = {}  # the version of what is discovered without a question
        self._done = set[str]()
        self._counted = set[tuple[int, ...]]()  # the first counts of the names asked to the end

    def set_servers(self, pool: str, servers: Iterable[Hashable]) -> None:
        """Take the servers that a pool has now."""
        kept = set(servers)
        self._idle.clear()  # one that is gone leaves its name to others
        for known in (self._asking, self._missed, self._left):
            for key in [key for key in known if key[0] == pool and key[1] not in kept]:
                del known[key]

    def next(self, pool: str, server: Hashable) -> bytes | None:
        """Return the body to post to a server now; None if there is nothing to ask."""
        key = pool, server
        asking = self._asking.get(key) or self._begin(key)
        if asking is None:
            return None
        body = samples()[len(asking.counts)].body
        return msgspec.json.encode({"model": asking.name, **body})

    def take(self, pool: str, server: Hashable, answer: bytes) -> bool:
        """Take a server's answer to the question last returned; False if it is no count."""
        try:
            count = _DECODER.decode(answer).count
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return False
        key = pool, server
        self._missed.pop(key, None)
        asking = self._asking.get(key)
        if asking is None:  # the server was gone meanwhile
            return True
        counts = asking.counts
        counts.append(count)
        is_kin = len(counts) == PROBATION and tuple(counts) in self._counted
        if is_kin or len(counts) == len(samples()):
            self._end(key, asking)
        return True

    def miss(self, pool: str, server: Hashable) -> None:
        """Note that a server gave no count; after some in a row it leaves its name to others."""
        key = pool, server
        self._missed[key] = missed = self._missed.get(key, 0) + 1
        if missed >= MOST_MISSED and (asking := self._asking.pop(key, None)):
            self._left[key] = asking.name
            self._idle.clear()

    def _begin(self, key: _Server) -> _Name | None:
        if self._idle.get(key) == self._discovery.version:
            return None
        taken = self._done.union(each.name for each in self._asking.values())
        names, left = self._discovery.names(*key) - taken, self._left.get(key, "")
        for name in sorted(names, key=lambda name: (name <= left, name)):  # that one comes last
            row = self._row(escape_reserved(name))
            if len(self._done) >= MOST_PRIMED or not row or row[-1].name != key[0]:
                continue
            if self._knows(escape_reserved(name)):
                self._done.add(name)
            else:
                self._asking[key] = asking = _Name(name)
                return asking
        self._idle[key] = self._discovery.version
        return None

    def _end(self, key: _Server, asking: _Name) -> None:
        del self._asking[key]
        self._done.add(asking.name)
        model = escape_reserved(asking.name)
        if not _are_tokens(asking.counts):
            return
        self._counted.add(tuple(asking.counts[:PROBATION]))
        if self._knows(model):  # answers, or another replica, were faster
            return
        for sample, count in zip(samples(), asking.counts, strict=False):
            self._teach(counted(sample, model, count))


def _are_tokens(counts: Sequence[int]) -> bool:
    """Return whether some tokenizer can have counted the samples so.

    Other units than tokens, and too few of them, would send requests to pools that cannot hold
    them until answers say otherwise.
    """
    weights = TokenWeights(MEASURED)
    seen = [(each.asked.measure, count) for each, count in zip(samples(), counts, strict=False)]
    expected = sum(weights.predict(measure).tokens for measure, _ in seen)
    return sum(counts) >= LEAST * expected and mean_oddity(weights, seen) <= MOST_ODD


def counted(sample: Sample, model: str, count: int) -> Observation:
    """Return what the count of a sample teaches of a model."""
    asked = structs.replace(sample.asked, model=model)
    return Observation(asked, Outcome.COUNTED, window=MAX_TOKENS, prompt_tokens=count)
