"""Plain texts are counted like all others."""

from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.category import content_class
from extproc.budget.measure import measure
from extproc.budget.plain_text import TextCounter

TEXTS = st.text(max_size=300) | st.text(st.characters(max_codepoint=0x7F), max_size=300)


@given(
    st.lists(
        st.tuples(TEXTS, st.integers(0, 1000), st.integers(1, 50), st.integers(0, 9)),
        min_size=1,
        max_size=4,
    )
)
def test_each_is_counted_as_if_it_were_the_only_one(prompts):
    counter = TextCounter()
    for text, more, messages, tools in prompts:
        sample = text.encode()
        size = len(sample) + more * bool(sample)
        found = counter.count(sample, size, messages=messages, tools=tools)
        measured = measure(sample, size, messages=messages, tools=tools)
        assert tuple(counter.features.tolist()) == measured.features
        assert counter.unseen == measured.unseen
        assert found is content_class(measured.features)
