"""Cutting texts where their tokens are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.evaluation.options import EvaluationError
from extproc.evaluation.texts import read_texts
from extproc.evaluation.tokenizer import load_tokenizers, tokenize

TEXTS = read_texts(None, 0)
O200K, CL100K = (load() for load in load_tokenizers(()))
TOKENIZED = tokenize(O200K, TEXTS)


@pytest.fixture
def tokenizer_file(tmp_path):
    """A tokenizer of words and single characters, in the format of Hugging Face."""
    words = ["[unk]", *dict.fromkeys(["owl", "sits", "still", "’", ".", ",", "\n"])]
    model = {
        "type": "WordLevel",
        "vocab": {w: i for i, w in enumerate(words)},
        "unk_token": "[unk]",
    }
    pre = {"type": "Whitespace"}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"version": "1.0", "model": model, "pre_tokenizer": pre,
                                "added_tokens": []}))  # fmt: skip
    return file


def test_without_files_there_are_two_vocabularies():
    assert (O200K.name, CL100K.name) == ("o200k_base", "cl100k_base")
    assert O200K.count("The owl sat still.") == 5


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.kind)
def test_the_cuts_span_the_text_and_its_tokens(text):
    places, before = O200K.cuts(text.text)
    assert (places[0], places[-1]) == (0, len(text.text))
    assert (before[0], before[-1]) == (0, O200K.count(text.text))


@given(st.sampled_from(TOKENIZED), st.floats(0, 1), st.integers(1, 500))
def test_a_run_has_about_the_tokens_that_it_says(source, start, wanted):
    text, tokens = source.run(start, wanted)
    assert text in source.text
    assert abs(O200K.count(text) - tokens) <= 3  # a cut may part a word from its space
    assert 1 <= tokens <= source.tokens


def test_a_run_is_never_longer_than_the_text():
    text, tokens = TOKENIZED[0].run(0.9, 10**9)
    assert (text, tokens) == (TOKENIZED[0].text, TOKENIZED[0].tokens)


def test_a_tokenizer_is_read_from_a_file_and_named_after_its_folder(tokenizer_file):
    (load,) = load_tokenizers((tokenizer_file,))
    tokenizer = load()
    assert tokenizer.name == tokenizer_file.parent.name
    assert tokenizer.count("owl sits still.") == 4


def test_the_cuts_of_a_file_are_where_its_tokens_start(tokenizer_file):
    places, before = load_tokenizers((tokenizer_file,))[0]().cuts("owl sits, still")
    assert places.tolist() == [0, 4, 8, 10, 15]
    assert before.tolist() == [0, 1, 2, 3, 4]


def test_a_file_that_is_no_tokenizer_is_an_error(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    with pytest.raises(EvaluationError, match="--tokenizer"):
        load_tokenizers((file,))[0]()
