"""The live service's histogram of lengths."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.lengths import (
    MOST_OUTPUT_TOKENS,
    MOST_PROMPT_TOKENS,
    LengthHistogram,
    Lengths,
    write_lengths,
)
from extproc.budget.values import Asked, Measure, Observation, Outcome
from tests.support.served_lengths import lengths_json

PROMPTS = st.integers(1, MOST_PROMPT_TOKENS)
OUTPUTS = st.integers(1, MOST_OUTPUT_TOKENS)
LENGTHS = st.lists(st.tuples(st.sampled_from("ab"), PROMPTS, OUTPUTS), max_size=8)


def counted(lengths):
    histogram = LengthHistogram()
    for length in lengths:
        histogram.observe(*length)
    return histogram


def sorted_rows(histogram):
    return sorted(histogram.rows())


@given(PROMPTS, OUTPUTS)
def test_a_length_is_kept_within_3_per_cent(prompt, output):
    ((_, kept_prompt, kept_output, _),) = counted([("a", prompt, output)]).rows()
    assert kept_prompt == pytest.approx(prompt, rel=0.03)
    assert kept_output == pytest.approx(output, rel=0.03)


@given(st.integers(1, 33))
def test_short_lengths_are_kept_exactly(tokens):
    assert list(counted([("a", tokens, tokens)]).rows()) == [("a", tokens, tokens, 1)]


@given(LENGTHS, LENGTHS)
def test_merged_replicas_are_as_one_that_saw_all(first, second):
    merged = counted(first)
    merged.merge(counted(second))
    assert sorted_rows(merged) == sorted_rows(counted(first + second))


@given(LENGTHS)
def test_json_reads_back_to_the_same_counts(lengths):
    histogram = counted(lengths)
    again = LengthHistogram.from_json(lengths_json(histogram))
    assert sorted_rows(again) == sorted_rows(histogram)


def test_json_says_what_it_holds():
    histogram = counted([("prose/m", 20, 3), ("prose/m", 20, 3), ("code/m", 7, 1)])
    assert lengths_json(histogram) == b'{"lengths":{"prose/m":[[20,3,2]],"code/m":[[7,1,1]]}}'


def test_nonsense_from_a_pool_is_counted_at_the_ends():
    histogram = counted([("a", 0, -5), ("a", 1 << 40, 1 << 40)])
    shortest, longest = sorted_rows(histogram)
    assert shortest == ("a", 1, 1, 1)
    assert longest[1] == pytest.approx(MOST_PROMPT_TOKENS, rel=0.03)
    assert longest[2] == pytest.approx(MOST_OUTPUT_TOKENS, rel=0.03)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"lengths": {"a": [[1, 2]]}}', '{"lengths": {"a": [[1, 0, 3]]}}']
)
def test_what_is_no_histogram_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        LengthHistogram.from_json(text)


def answered(*requests):
    """Lengths of requests of prompt tokens, completion tokens and sequences."""
    lengths = Lengths()
    for prompt, completion, sequences in requests:
        asked = Asked("m", "prose", Measure(400), None, sequences=sequences)
        seen = Observation(asked, Outcome.COMPLETE, 8192, prompt, completion)
        lengths.observe("prose/m", seen)
    return write_lengths(lengths.rows())


def test_requests_of_one_sequence_are_told_once():
    assert answered((20, 3, 1), (7, 1, 1)) == b'{"lengths":{"prose/m":[[7,1,1],[20,3,1]]}}'


def test_from_the_first_request_of_several_sequences_on_these_are_told_too():
    assert json.loads(answered((20, 3, 1), (10, 24, 8), (20, 3, 1))) == {
        "lengths": {"prose/m": [[10, 24, 1], [20, 3, 2]]},
        "sequences": {"prose/m": [[10, 3, 8], [20, 3, 2]]},
    }


def test_a_plan_is_made_of_sequences():
    read = LengthHistogram.from_json(answered((20, 3, 1), (10, 24, 8)))
    assert sorted_rows(read) == [("prose/m", 10, 3, 8), ("prose/m", 20, 3, 1)]


def test_a_count_over_2_to_the_53rd_is_refused():
    body = '{"lengths": {"a": [[1, 1, %d]]}}'
    assert list(LengthHistogram.from_json(body % 2**53).rows()) == [("a", 1, 1, 2**53)]
    with pytest.raises(ValueError, match="2"):
        LengthHistogram.from_json(body % (2**53 + 1))


@given(LENGTHS)
def test_a_category_that_is_folded_is_counted_as_another(lengths):
    histogram = counted(lengths)
    histogram.fold("a", "b")
    assert sorted_rows(histogram) == sorted_rows(counted([("b", *rest) for _, *rest in lengths]))


@pytest.mark.parametrize("several", ["a", "b"])
def test_sequences_stay_complete_when_a_category_is_folded(several):
    lengths = Lengths()
    for category in "ab":
        asked = Asked("m", category, Measure(4), None, sequences=1 + (category == several))
        lengths.observe(category, Observation(asked, Outcome.COMPLETE, 8192, 20, 10))
    lengths.fold("a", "b")
    rows = [row[1:] for row in lengths.rows() if row.table == "sequences"]
    assert sorted(rows) == [("b", 20, 5, 2), ("b", 20, 10, 1)]
    assert [row[1:] for row in lengths.rows() if row.table == "lengths"] == [("b", 20, 10, 2)]


@pytest.mark.parametrize(
    ("sequences", "told"), [(1, {"lengths": 20}), (4, {"lengths": 20, "sequences": 80})]
)
def test_a_request_counts_for_those_that_it_stands_for(sequences, told):
    lengths = Lengths()
    asked = Asked("m", "prose", Measure(400), None, sequences=sequences)
    lengths.observe("a", Observation(asked, Outcome.COMPLETE, 8192, 100, 40, stands_for=20))
    assert {row.table: row.seen for row in lengths.rows()} == told
