"""From a request to its decision, and the record's way through metadata."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.category import Labels
from extproc.budget.features import FEATURES
from extproc.budget.learner import Learner
from extproc.budget.values import Asked, Basis, Budget, Measure
from extproc.request.reader import Endpoint, Image, read_request
from extproc.routing.pools import Pool, Reason
from extproc.routing.route import Routed, Rules, from_note, route, route_unread, to_note
from tests.support.conversation import paper, stages

RULES = stages().rules
THREE = Rules(
    (Pool("s", 4096, 4096), Pool("m", 16384, 8192), Pool("l", 65536, 65536)), "", 1 << 20, 0
)
REQUEST = read_request(Endpoint.COMPLETION, b'{"model": "m", "prompt": "hello", "max_tokens": 9}')


def decide(rules=RULES, header="", **changes):
    request = dataclasses.replace(REQUEST, **changes)
    return route(request, header, Learner(paper(), Labels(8)), rules)


def test_a_record_says_what_was_asked_and_what_was_reserved():
    routed = decide()
    assert (routed.pool, routed.reason) == ("short", Reason.FITS)
    assert (routed.asked.model, routed.asked.category) == ("m", "prose")
    assert routed.asked.output_limit == 9
    assert routed.budget == Budget(2, 0, 9, Basis.PRIOR)


def test_a_limit_holds_for_each_sequence():
    assert decide(sequences=3).asked.output_limit == 9


def test_no_limit_is_not_a_limit_of_zero():
    assert decide(max_tokens=None).asked.output_limit is None
    assert decide(max_tokens=None, generates=False).asked.output_limit == 0


def test_a_header_names_the_category_where_the_operator_says_so():
    rules = dataclasses.replace(RULES, category_header="x-task")
    assert decide(rules, "chat").asked.category == "chat"
    assert decide(rules).asked.category == "unnamed"


def test_a_models_name_is_made_printable():
    assert decide(model="a\nb\x7f").asked.model == "ab"


@pytest.mark.parametrize(
    ("tokens", "pool"), [(4000, "s"), (4097, "m"), (8192, "m"), (8193, "l"), (70000, "l")]
)
def test_any_number_of_pools_can_stand_in_a_row(tokens, pool):
    assert (
        decide(THREE, text_bytes=0, token_ids=tokens, max_tokens=None, generates=False).pool == pool
    )


def test_what_is_heard_and_seen_is_reserved_for():
    image = FEATURES.index("images")
    seen = decide(images=(Image(width=28, height=28),), audios=1, videos=1)
    assert seen.asked.measure.features[image] == 1 + 1 + 16


def test_an_unread_request_goes_to_the_largest_pool_and_reserves_nothing():
    routed = route_unread(THREE)
    assert (routed.pool, routed.reason, routed.budget.tokens) == ("l", Reason.UNREADABLE, 0)


RECORDS = st.builds(
    Routed,
    st.sampled_from(["short", "long"]),
    st.sampled_from(Reason),
    st.builds(
        Asked,
        st.text(max_size=5),
        st.text(max_size=5),
        st.builds(
            Measure,
            st.integers(0, 2**40),
            st.integers(0, 2**40),
            st.tuples(*[st.floats(0, 1e9)] * len(FEATURES)),
            st.floats(0, 1),
        ),
        st.none() | st.integers(0, 2**40),
    ),
    st.builds(Budget, *[st.integers(0, 2**40)] * 3, st.sampled_from(Basis)),
    st.integers(0, 2**31),
    st.integers(1, 2**31),
    st.booleans(),
)


@given(RECORDS)
def test_a_record_survives_its_way(routed):
    assert from_note(to_note(routed), RULES) == routed


@given(st.dictionaries(st.sampled_from(["routed", "x"]), st.text() | st.floats() | st.booleans()))
def test_any_note_is_a_record_or_none(note):
    assert from_note(note, RULES) is None


@pytest.mark.parametrize("change", [{"pool": "gone"}, {"sequences": 0}])
def test_a_record_that_cannot_be_ours_is_none(change):
    assert from_note(to_note(dataclasses.replace(decide(), **change)), RULES) is None


@pytest.mark.parametrize(
    ("changes", "refusable"),
    [
        ({"text_bytes": 8192 - 512 - 32 - 9}, False),
        ({"text_bytes": 8192 - 512 - 32 - 8}, True),
        ({"text_bytes": 8192 - 512 - 32 - 8, "max_tokens": None, "generates": False}, False),
        ({"text_bytes": 10, "images": (Image(width=28, height=28),)}, True),
        ({"text_bytes": 10, "messages": 300}, True),
        ({"text_bytes": 10, "tools": 300}, True),
    ],
)
def test_a_request_whose_bytes_prove_that_it_fits_cannot_be_refused(changes, refusable):
    routed = decide(**changes)
    assert (routed.pool, routed.refusable) == ("short", refusable)


def test_the_largest_pool_has_none_to_refuse_to():
    assert not decide(text_bytes=200_000).refusable
