"""Cases for the tests of the evaluation, with no tokenizer: a token is a word with its space."""

import itertools

import numpy as np

from extproc.budget.measure import measure
from extproc.budget.values import Asked
from extproc.evaluation.cases import TEMPLATES, Case, Reader
from extproc.evaluation.cuts import cuts_of_pieces
from extproc.evaluation.requests import Writer
from extproc.evaluation.texts import Text
from extproc.evaluation.tokenizer import tokenize

TEXTS = (
    Text("english", "Owls sit still in the barn at night, and nobody hears them leave. " * 200),
    Text("records", 'id=17 name="owl" seen=2026-11-21 score=0.75 tags=[barn, night]\n' * 200),
)


class Words:
    name = "words"

    def count(self, text: str) -> int:
        return len(text.split())

    def cuts(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        pieces = text.split(" ")
        spaced = [f"{piece} " for piece in pieces[:-1]] + [pieces[-1]]
        pieces = [piece for piece in spaced if piece]
        return cuts_of_pieces(pieces, [self.count(piece) for piece in pieces])


def writer(stated: float = 1.0, texts: tuple[Text, ...] = TEXTS) -> Writer:
    return Writer(tokenize(Words(), texts), Words(), TEMPLATES[0], stated=stated)


def reader() -> Reader:
    return Reader("words")


def case(
    words: int = 400, output: int | None = 256, answer: int = 100, category: str = "prose", **more
) -> Case:
    """A prompt of `words` tokens and 20 of the template, which asks for `output` at most."""
    text = " ".join(itertools.islice(itertools.cycle(TEXTS[0].text.split()), words)).encode()
    measured = measure(text, len(text), messages=1)
    values = {
        "kind": "english",
        "asked": Asked("m", category, measured, output),
        "messages": 1,
        "tools": 0,
        "structured_bytes": 0,
        "prompt_tokens": words + 20,
        "completion_tokens": answer,
    } | more
    return Case(**{"whole_tokens": values["prompt_tokens"]} | values)
