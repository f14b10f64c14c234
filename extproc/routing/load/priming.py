"""Learn the tokenizers of models from what their servers count, before the first answer.

Servers of vLLM count a prompt at `/tokenize`. They are asked about the conversations of
`samples.jsonl`: kinds of text and scripts, then several turns, then tools. What they count teaches
as the prompt of an answer does, and nothing of outputs.

A name whose first counts are all equal to those of a name before it has the same tokenizer and
template, as aliases and adapters do, and is asked no more.

Invariant: a name is asked by one server at a time, and once; a server that refuses is asked no
more.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pkgutil import get_data
from typing import Annotated, Final, cast

import msgspec
from msgspec import Meta, structs

from extproc.budget.category import apart
from extproc.budget.families import PROBATION
from extproc.budget.values import Asked, Observation, Outcome
from extproc.request.apis import Endpoint
from extproc.request.reader import read_request
from extproc.routing.ask import ask
from extproc.routing.load.discovery import Discovery
from extproc.tokens import MAX_TOKENS

MOST_PRIMED: Final = 1024
"""The names that are looked at; further ones learn from answers alone."""
MOST_MISSED: Final = 5
"""The questions in a row that a server may leave without an answer."""

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
        knows: Callable[[str], bool],
        teach: Callable[[Observation], None],
    ) -> None:
        """`knows` tells whether a model needs no counts."""
        self._discovery, self._knows, self._teach = discovery, knows, teach
        self._asking: dict[_Server, _Name] = {}
        self._missed: dict[_Server, int] = {}
        self._idle: dict[_Server, int] = {}  # the version of what is discovered without a question
        self._done = set[str]()
        self._counted = set[tuple[int, ...]]()  # the first counts of the names asked to the end

    def set_servers(self, pool: str, servers: Iterable[Hashable]) -> None:
        """Take the servers that a pool has now."""
        kept = set(servers)
        self._idle.clear()  # one that is gone leaves its name to others
        for known in (self._asking, self._missed):
            for key in [key for key in known if key[0] == pool and key[1] not in kept]:
                del known[key]

    def next(self, pool: str, server: Hashable) -> bytes | None:
        """Return the body to post to a server now; None if there is nothing to ask."""
        key = pool, server
        if self._missed.get(key, 0) >= MOST_MISSED:
            return None
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
            self._counted.add(tuple(counts[:PROBATION]))
            self._end(key, asking)
        return True

    def miss(self, pool: str, server: Hashable, *, refused: bool) -> None:
        """Note that a server gave no count; if it refused to, it is asked no more."""
        key = pool, server
        missed = MOST_MISSED if refused else self._missed.get(key, 0) + 1
        self._missed[key] = missed
        asking = self._asking.get(key)
        if missed < MOST_MISSED or asking is None:
            return
        if asking.counts:
            self._end(key, asking)
        else:  # another server may count it
            del self._asking[key]
            self._idle.clear()

    def _begin(self, key: _Server) -> _Name | None:
        if self._idle.get(key) == self._discovery.version:
            return None
        taken = self._done.union(each.name for each in self._asking.values())
        for name in sorted(self._discovery.names(*key) - taken):
            if len(self._done) >= MOST_PRIMED:
                return None
            if self._knows(apart(name)):
                self._done.add(name)
            else:
                self._asking[key] = asking = _Name(name)
                return asking
        self._idle[key] = self._discovery.version
        return None

    def _end(self, key: _Server, asking: _Name) -> None:
        del self._asking[key]
        self._done.add(asking.name)
        model = apart(asking.name)
        if self._knows(model):  # answers, or another replica, were faster
            return
        for sample, count in zip(samples(), asking.counts, strict=False):
            self._teach(counted(sample, model, count))


def counted(sample: Sample, model: str, count: int) -> Observation:
    """Return what the count of a sample teaches of a model."""
    asked = structs.replace(sample.asked, model=model)
    return Observation(asked, Outcome.COUNTED, window=MAX_TOKENS, prompt_tokens=count)
