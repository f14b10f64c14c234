"""The texts of simulated answers."""

import statistics

from hypothesis import given
from hypothesis import strategies as st

from extproc.simulator.pool.tokenizer import Tokenizer
from extproc.simulator.pool.words import END_PROBABILITY, WORDS, GeneratedText

SEEDS = st.binary(max_size=8)


def answer(
    seed: bytes, limit: int = 10_000, *, at_least: int = 0, ignore: bool = False
) -> GeneratedText:
    return GeneratedText(seed, limit, at_least=at_least, ignore_eos=ignore)


def test_every_word_is_one_token():
    tokenizer = Tokenizer()
    assert [word for word in WORDS if tokenizer.count(word) != 1] == []


def test_no_word_comes_twice():
    assert len(set(WORDS)) == len(WORDS)


@given(SEEDS, st.lists(st.integers(1, 50), max_size=30))
def test_the_cuts_do_not_change_the_text(seed, cuts):
    cut = answer(seed)
    assert "".join([cut.take(count) for count in cuts] + [cut.take(10_000)]) == (
        answer(seed).take(10_000)
    )


@given(SEEDS, st.integers(1, 400))
def test_a_limit_cuts_the_answer(seed, limit):
    free, limited = answer(seed), answer(seed, limit)
    assert limited.tokens == min(free.tokens, limit)
    assert limited.finish == ("stop" if free.tokens <= limit else "length")


@given(SEEDS, st.integers(1, 400))
def test_an_answer_that_stops_ends_with_a_token_without_text(seed, limit):
    told = answer(seed, limit)
    words = told.take(told.tokens).split()
    assert len(words) == told.tokens - (told.finish == "stop")


@given(SEEDS, st.integers(1, 400))
def test_ignore_eos_goes_to_the_limit(seed, limit):
    told = answer(seed, limit, ignore=True)
    assert (told.tokens, told.finish) == (limit, "length")


@given(SEEDS, st.integers(0, 400))
def test_min_tokens_come_before_the_end(seed, at_least):
    assert answer(seed, at_least=at_least).tokens > at_least


def test_the_mean_length_is_that_of_the_end_probability():
    lengths = [answer(str(seed).encode()).tokens for seed in range(4000)]
    assert abs(statistics.mean(lengths) * END_PROBABILITY - 1) < 0.05
