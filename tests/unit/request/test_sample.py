"""The sample stands for the whole."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.sample import SAMPLE_BYTES, take_sample

texts = st.lists(
    st.builds(lambda text, times: text * times, st.text(min_size=1), st.integers(1, 3000))
)


@given(texts)
def test_every_byte_is_counted(pieces):
    assert take_sample(pieces)[0] == len("".join(pieces).encode())


@given(texts)
def test_a_sample_is_bounded_and_cuts_no_character(pieces):
    sample = take_sample(pieces)[1]
    assert len(sample) <= SAMPLE_BYTES
    assert set(sample.decode()) <= set("\n".join(pieces))


@given(st.lists(st.text(min_size=1)))
def test_a_short_text_is_its_own_sample(pieces):
    assert take_sample(pieces)[1] == "\n".join(pieces).encode()


def test_no_text_has_an_empty_sample():
    assert take_sample([]) == (0, b"")


@given(texts)
def test_the_sample_of_a_long_text_is_nearly_as_long_as_it_may_be(pieces):
    total, sample = take_sample(pieces)
    assert len(sample) >= min(total, SAMPLE_BYTES) * 0.98


@pytest.mark.parametrize(
    "pieces",
    [
        ["a" * 100_000 + "b" * 300_000],
        ["a" * 100_000, "b" * 300_000],
        ["a", "b", "b", "b"] * 25_000,
        ["\N{SNOWMAN}" * 100_000 + "b" * 900_000],
        ["\N{SNOWMAN}" * 10_000, "b" * 90_000],
    ],
)
def test_a_quarter_of_the_text_is_a_quarter_of_the_sample(pieces):
    total, sample = take_sample(pieces)
    share = 1 - "".join(pieces).count("b") / total
    assert 1 - sample.count(b"b") / len(sample) == pytest.approx(share, abs=0.02)


def test_the_same_texts_have_the_same_sample():
    pieces = ["".join(map(str, range(50_000))), "x" * 99]
    assert take_sample(pieces) == take_sample(list(pieces))


def test_every_one_of_several_long_texts_is_in_the_sample():
    letters = "abcdefghijklmnopqrstuvwxyzABCDEF"
    total, sample = take_sample([letter * 2048 for letter in letters])
    assert total == 32 * 2048
    assert {sample.count(letter.encode()) for letter in letters} == {2 * (256 - 3)}


def test_windows_do_not_overlap():
    pieces = [f"{number:040}" for number in range(400)]
    assert take_sample(pieces) == (16_000, "".join(pieces).encode())


@pytest.mark.parametrize("cuts", [[], [16_000, 32_000, 48_000], [20_500], [20_100], [20_253]])
def test_windows_begin_at_even_distances(cuts):
    text = "".join(f"{number:08}" for number in range(8000))
    edges = [0, *cuts, len(text)]
    sample = take_sample([text[a:b] for a, b in pairwise(edges)])[1]
    assert sample == "".join(text[i : i + 253] for i in range(0, 64_000, 1000)).encode()
