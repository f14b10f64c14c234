"""Content classes and the bounded set of categories."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.bounded import IDLE
from extproc.budget.category import (
    LABEL_CHARS,
    NAME_CHARS,
    OTHER,
    OTHER_MODELS,
    UNNAMED,
    ContentClass,
    Labels,
    content_class,
    label,
    named,
)
from extproc.budget.features import FEATURES
from extproc.budget.measure import measure, measure_media

TEXTS = {
    ContentClass.PROSE: "The owl sat still, as owls do; nobody in the barn had noticed it yet. "
    * 3,
    ContentClass.CODE: "def run(self, x: int) -> None:\n    self._x = [y for y in x if y > 3]\n"
    * 3,
    ContentClass.STRUCTURED: json.dumps(
        [{"id": i, "price": i * 1.5, "ok": True} for i in range(9)]
    ),
    ContentClass.CJK: "猫头鹰在谷仓里一动不动，没有人注意到它。" * 3,
    ContentClass.SCRIPT: "Сова сидела неподвижно, и никто в амбаре её не заметил. " * 3,
    ContentClass.MIXED: "The word for owl is 猫头鹰 and here is one more 一个例子 of it. " * 3,
}


def classify(text):
    return content_class(measure(text, len(text), messages=1).features)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_of_each_kind_is_recognised(kind):
    assert classify(TEXTS[kind].encode()) is kind


def test_an_empty_text_is_prose():
    assert classify(b"") is ContentClass.PROSE


@pytest.mark.parametrize("media", [{"videos": 1}, {"audios": 1}, {"stated": 1}])
@pytest.mark.parametrize("text", TEXTS.values())
def test_a_prompt_with_media_is_of_their_class_whatever_its_text(text, media):
    data = text.encode()
    found = measure(data, len(data), messages=1, media=measure_media([], **media))
    assert content_class(found.features) is ContentClass.MEDIA


@given(st.binary())
def test_any_bytes_have_a_class(data):
    assert classify(data) in ContentClass


def test_a_header_names_the_category():
    assert named(" chat ") == "chat"
    assert named("") == UNNAMED


@pytest.mark.parametrize("value", [OTHER, UNNAMED, "(other)", "other/a", "a/other/b", "a/(other)"])
def test_no_part_of_a_clients_name_is_a_name_of_ours(value):
    assert {OTHER, UNNAMED, OTHER_MODELS}.isdisjoint(named(value).split("/"))


@pytest.mark.parametrize("value", ["others", "Other", "~other", "my other"])
def test_a_name_that_only_contains_one_of_ours_stays(value):
    assert named(value) == value


@given(st.text())
def test_what_a_client_wrote_becomes_short_and_printable(text):
    for name, chars in ((named(text), NAME_CHARS), (label(text), LABEL_CHARS)):
        assert len(name) <= chars
        assert name.isprintable()


@pytest.mark.parametrize("name", ["prose/通义千问", "prose/智谱", "code/qwen3"])
def test_a_short_name_is_its_own_label(name):
    assert label(name) == name


def test_names_that_differ_only_in_what_is_cut_have_labels_of_their_own():
    names = ["m" * 200 + "a", "m" * 200 + "b", "m\n", "m\t", "m"]
    assert len({label(name) for name in names}) == len(names)


def test_a_category_is_known_once_it_was_taught():
    labels = Labels(8)
    assert labels.known("a") == OTHER
    labels.admit("a")
    assert labels.known("a") == "a"


def test_beyond_the_limit_categories_share_one():
    labels = Labels(2)
    labels.admit("a")
    labels.admit("b")
    assert (labels.known("a"), labels.known("b")) == ("a", OTHER)


def test_a_label_that_is_idle_is_replaced():
    labels = Labels(2)
    labels.admit("a")
    gone = [labels.admit("b") for _ in range(IDLE + 2)]
    assert gone[-1] == "a"
    assert (labels.known("a"), labels.known("b")) == (OTHER, "b")


def test_labels_that_take_turns_do_not_replace_each_other():
    labels = Labels(3)
    assert not any(labels.admit(name) for name in "abc" * 100)
    assert [labels.known(name) for name in "abc"] == ["a", "b", OTHER]


def test_where_series_of_replaced_labels_stay_replacing_ends():
    labels = Labels(2, replaceable=1)
    for name in ["a", *["b"] * (IDLE + 2), *["c"] * (2 * IDLE)]:
        labels.admit(name)
    assert (labels.known("b"), labels.known("c")) == ("b", OTHER)


@given(st.lists(st.text(max_size=3)), st.integers(2, 5))
def test_there_are_never_more_labels_than_permitted(names, limit):
    labels = Labels(limit)
    for name in names:
        labels.admit(name)
    assert len({labels.known(name) for name in names} | {OTHER}) <= limit


def features(**counts):
    return tuple(float(counts.get(name, 0.0)) for name in FEATURES)


@pytest.mark.parametrize(
    ("counts", "kind"),
    [
        # In bytes: three for a Han character, two for a Cyrillic letter; CJK above 2/3 of the sum.
        ({"han_kana": 45, "greek_cyrillic": 67}, ContentClass.CJK),
        ({"han_kana": 44, "greek_cyrillic": 67}, ContentClass.SCRIPT),
        ({"han_kana": 44, "greek_cyrillic": 66}, ContentClass.SCRIPT),
        ({"lower": 100, "greek_cyrillic": 51}, ContentClass.SCRIPT),
        ({"lower": 100, "greek_cyrillic": 50}, ContentClass.MIXED),
        ({"lower": 850, "hangul": 51}, ContentClass.MIXED),
        ({"lower": 850, "hangul": 50}, ContentClass.PROSE),
        ({"lower": 700, "digit_digit": 151, "punct_runs": 150}, ContentClass.STRUCTURED),
        ({"lower": 700, "digit_digit": 150, "punct_runs": 150}, ContentClass.CODE),
        ({"lower": 905, "punct_punct": 96}, ContentClass.CODE),
        ({"lower": 905, "punct_punct": 95}, ContentClass.PROSE),
    ],
)
def test_the_kinds_have_exact_bounds(counts, kind):
    assert content_class(features(**counts)) is kind
