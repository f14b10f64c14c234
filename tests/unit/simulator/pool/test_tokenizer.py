"""The simulated pool's tokenizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.simulator.pool.tokenizer import CHARACTERS_PER_TOKEN, Tokenizer

TOKENIZER = Tokenizer()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def test_it_is_o200k_base():
    assert TOKENIZER.encode("hello world") == [24912, 2375]


@given(TEXTS)
def test_the_count_is_the_number_of_ids(text):
    assert TOKENIZER.count(text) == len(TOKENIZER.encode(text))


@pytest.mark.parametrize("text", ["<|endoftext|>", "<|start|>user<|message|>", "<|endofprompt|>"])
def test_special_tokens_in_a_text_are_characters(text):
    assert TOKENIZER.count(text) > 1


def test_a_text_beyond_a_million_characters_is_counted():
    assert TOKENIZER.count("word " * 250_000) > 250_000 - 1


def test_no_token_is_longer_than_a_run_of_spaces():
    assert TOKENIZER.count(" " * CHARACTERS_PER_TOKEN) == 1
    assert TOKENIZER.count(" " * (CHARACTERS_PER_TOKEN + 1)) == 2


def test_a_lone_surrogate_is_no_text():
    with pytest.raises(UnicodeEncodeError):
        TOKENIZER.count("\ud800")
