"""Name the beginnings of a conversation by digests, to know them again in later requests.

The digest of a beginning covers everything that its tokens depend on: the texts, the sizes of the
images, and what the prompt has beside its turns. It is keyed, so that nobody can make a prompt that
passes for the beginning of another.

    request 1   [system, user]                     answered: 900 tokens
    request 2   [system, user, assistant, user]    begins with the digest of request 1

Invariant: what is looked at is bounded, and texts are kept no longer than the request is decided.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import Final, NamedTuple

import msgspec

from extproc.request.image import Image
from extproc.request.prompt import Mark, Prompt

LEAST_CHARS: Final = 2048
"""Shorter beginnings have no digest: their tokens are estimated well enough."""
MOST_CHARS: Final = 1 << 20
"""Longer conversations have no digests: it takes a millisecond to make those of this one."""
LAST: Final = 8
"""The turns at the end that may follow on a beginning: an answer, calls of tools, their results."""
DIGEST_CHARS: Final = 32

_JSON: Final = msgspec.json.Encoder()
_INSTRUCTIONS: Final = ("system", "developer")
_EDGE: Final = 1024  # characters at both ends of an address, or of encoded media, that tell it


class Beginning(NamedTuple):
    """So many turns, and the digest of them and of what the prompt has beside its turns."""

    turns: int
    digest: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation as it was read.

    roles: of its turns. marks: one before each turn, and one after the last. texts, thoughts
    (reasoning that templates may drop), images, unsized (media whose size is unknown): in the order
    in which they were read. others: texts of the prompt that templates may drop, by their kinds.
    read_rest: reads what follows so many turns.
    """

    roles: Sequence[str]
    marks: Sequence[Mark]
    texts: Sequence[str] = field(repr=False)
    thoughts: Sequence[str] = field(repr=False)
    images: Sequence[Image]
    unsized: Sequence[object] = field(repr=False)
    others: Sequence[tuple[str, Sequence[str]]] = field(repr=False)
    read_rest: Callable[[int], Prompt] = field(repr=False, compare=False)

    def beginnings(self, key: bytes, of: tuple[str, ...]) -> list[Beginning]:
        """Return the beginnings that earlier or later requests may have, the longest first.

        These are the whole, what precedes each of the LAST turns, and the instructions that other
        conversations share. Digests are equal only for equal names in `of`.
        """
        every = chain(self.texts, self.thoughts, *(texts for _, texts in self.others))
        if not LEAST_CHARS <= sum(map(len, every)) <= MOST_CHARS:
            return []
        count = len(self.roles)
        places = {self.instructions, *range(max(1, count - LAST), count + 1)}
        hashed = blake2b(digest_size=DIGEST_CHARS // 2, key=key)
        beside = (*self.texts[: self.marks[0].texts], *self.texts[self.marks[-1].texts :])
        hashed.update(_JSON.encode((of, beside, self.others)))
        chars, found = sum(map(len, beside)), []
        before = 0
        for place in sorted(places):
            between = [self._turn(turn) for turn in range(before, place)]
            hashed.update(_JSON.encode_lines(between))  # the same, however they are grouped
            texts = self.texts[self.marks[before].texts : self.marks[place].texts]
            chars, before = chars + sum(map(len, texts)), place
            if chars >= LEAST_CHARS:
                found.append(Beginning(place, hashed.hexdigest()))
        return found[::-1]

    @property
    def instructions(self) -> int:
        """The turns of instructions at the start."""
        found = (n for n, role in enumerate(self.roles) if role not in _INSTRUCTIONS)
        return next(found, 0)

    def _turn(self, place: int) -> tuple[object, ...]:
        start, end = self.marks[place], self.marks[place + 1]
        images = self.images[start.images : end.images]
        return (
            self.roles[place],
            self.texts[start.texts : end.texts],
            self.thoughts[start.thoughts : end.thoughts],
            [(image.width, image.height) for image in images],
            [list(_edges(each)) for each in self.unsized[start.unsized : end.unsized]],
        )


def role_of(turn: object) -> str:
    """Return who speaks, or the type of an item of the Responses API."""
    role = (turn.get("role") or turn.get("type")) if isinstance(turn, dict) else None
    return role if isinstance(role, str) else ""


def _edges(media: object) -> Iterator[object]:
    """Yield what tells media of unknown size apart, such as their address."""
    for value in media.values() if isinstance(media, dict) else (media,):
        if isinstance(value, str):
            yield len(value), value[:_EDGE], value[-_EDGE:]
