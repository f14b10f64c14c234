"""Completion tokens by what a request shows of its output: its kind, and the size of its prompt.

A *kind* is how much the request asks the model to think, what form it demands of the answer, and
whether it states an output limit that is a hint; a limit that is reserved in full leaves nothing to
predict. A distribution of a kind borrows from the same kind of more requests (a category from its
model), one of a size from its kind.

Invariant: memory is bounded: there are two kinds for each value of request.thinking.Thinking, in
six sizes, and two for each pair of a form and no thinking.
"""

from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from extproc.budget.saved import Name
from extproc.budget.sketch import Counts, SavedSketch, Sketch, count_prior
from extproc.budget.values import Asked, Observation, Outcome

OUTPUT_MEMORY: Final = 1500.0
SIZES: Final = 6
"""Classes of prompts: below 512, 1024, 2048, 4096, 8192 tokens, and longer ones."""

_NO_THOUGHT: Final = ("", "off")


class Kind(NamedTuple):
    """How much the model is asked to think, the answer's form, and whether a limit is stated.

    The form is empty where the model may think: that says more of the output.
    """

    thinking: str
    form: str
    hint: bool


def output_kind(asked: Asked) -> Kind | None:
    """Return the kind of a request's output; None if a limit is reserved in full."""
    if asked.reserved is not None:
        return None
    form = asked.form if asked.thinking in _NO_THOUGHT else ""
    return Kind(asked.thinking, form, asked.output_limit is not None)


def size_class(prompt_tokens: float) -> int:
    """Return the class of a prompt's size."""
    return max(0, min(SIZES - 1, int(prompt_tokens).bit_length() - 9))


class SavedOutput(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The outputs of one kind in a snapshot, and of a size of it."""

    thinking: Name
    hint: bool
    size: Annotated[int, Meta(ge=0, lt=SIZES)] | None
    sketch: SavedSketch
    form: Name = ""


class SavedOutputs(msgspec.Struct, frozen=True, array_like=True):
    """Outputs in a snapshot."""

    every: SavedSketch
    kinds: Annotated[list[SavedOutput], Meta(max_length=512)]


class Outputs:
    """The outputs of some requests; `wider` are those of more requests."""

    def __init__(self, wider: "Outputs | None" = None, *, outgrows: bool = False) -> None:
        self._wider, self._outgrows = wider, outgrows
        self.every: Sketch = self._new(wider.every if wider else None)
        """The outputs of all kinds."""
        self._kinds: dict[Kind, Sketch] = {}
        self._sizes: dict[tuple[Kind, int], Sketch] = {}

    def find(self, kind: Kind | None, size: int) -> Sketch:
        """Return the narrowest distribution that is known of such outputs."""
        if kind is None:
            return self.every
        return self._sizes.get((kind, size)) or self.find_kind(kind) or self.every

    def find_kind(self, kind: Kind) -> Sketch | None:
        """Return the narrowest distribution of a kind, of prompts of all sizes."""
        own = self._kinds.get(kind)
        return own or (self._wider.find_kind(kind) if self._wider else None)

    def add(self, kind: Kind | None, size: int, seen: Observation, weight: float) -> None:
        """Count an output in this distribution; the wider ones were told of it before."""
        _add(self.every, seen, weight)
        if kind is not None:
            _add(self._add_kind(kind), seen, weight)
            # 126 distributions with the sizes of forms, 78 without.
            if not kind.form:
                _add(self._add_size(kind, size), seen, weight)

    def save(self) -> SavedOutputs:
        """Return what is kept in a snapshot."""
        kinds = [_save(kind, None, each) for kind, each in self._kinds.items()]
        sizes = [_save(kind, size, each) for (kind, size), each in self._sizes.items()]
        return SavedOutputs(self.every.save(), kinds + sizes)

    def load(self, saved: SavedOutputs) -> None:
        """Continue as those that were saved; load the wider ones first. Raises ValueError."""
        self.every.load(saved.every)
        for each in saved.kinds:
            kind = Kind(each.thinking, each.form, each.hint)
            if not each.sketch.observations:
                raise ValueError("a kind without an output")
            own = self._add_kind(kind) if each.size is None else self._add_size(kind, each.size)
            own.load(each.sketch)

    def _add_kind(self, kind: Kind) -> Sketch:
        if kind not in self._kinds:
            self._kinds[kind] = self._new(self.find_kind(kind) or self.every)
        return self._kinds[kind]

    def _add_size(self, kind: Kind, size: int) -> Sketch:
        parent = self._add_kind(kind)
        if (kind, size) not in self._sizes:
            self._sizes[kind, size] = self._new(parent)
        return self._sizes[kind, size]

    def _new(self, parent: Sketch | None) -> Sketch:
        return Sketch(Counts(), parent or count_prior(), OUTPUT_MEMORY, outgrows=self._outgrows)


def _save(kind: Kind, size: int | None, outputs: Sketch) -> SavedOutput:
    return SavedOutput(kind.thinking, kind.hint, size, outputs.save(), kind.form)


def _add(sketch: Sketch, seen: Observation, weight: float) -> None:
    """Count the output of an answer; one that was cut is known to be longer."""
    add = sketch.add_censored if seen.outcome is Outcome.CUT else sketch.add
    add(seen.output_tokens, weight)
