"""Plain texts are counted like all others."""

from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.category import content_class
from extproc.budget.measure import measure
from extproc.budget.plain_text import TextCounter

TEXTS = st.text(max_size=300) | st.text(st.characters(max_codepoint=0x7F), max_size=300)


@given(st.lists(st.tuples(TEXTS, st.integers(1, 50), st.integers(0, 9)), min_size=1, max_size=4))
def test_each_is_counted_as_if_it_were_the_only_one(prompts):
    counter = TextCounter()
    for text, messages, tools in prompts:
        data = text.encode()
        found = counter.count(data, messages, tools)
        features = measure(data, len(data), messages=messages, tools=tools).features
        assert tuple(counter.features.tolist()) == features
        assert found is content_class(features)
