"""What can have been written by this service, and what cannot."""

import math

import pytest
from msgspec import structs

from extproc.budget.values import Measure, Prefix
from extproc.routing.sound import MOST_COUNT, is_asked, is_observation
from tests.support.answers import sound_answers

SEEN = next(sound_answers(1, 1))
ASKED, MEASURE = SEEN.asked, SEEN.asked.measure
DIGEST = "0" * 32


def test_what_the_service_observes_is_sound():
    assert all(map(is_observation, sound_answers(2, 300)))


@pytest.mark.parametrize(
    "change",
    [
        {"window": 0},
        {"window": MOST_COUNT + 1},
        {"prompt_tokens": -1},
        {"completion_tokens": 1 << 31},
        {"stands_for": 0},
        {"stands_for": 1_000_001},
    ],
)
def test_a_count_out_of_range_is_not(change):
    assert not is_observation(structs.replace(SEEN, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "m" * 257},
        {"category": "c" * 257},
        {"tenant": "short"},
        {"thinking": "unheard of"},
        {"form": "unheard of"},
        {"sequences": 0},
        {"share": 0.0},
        {"share": math.nan},
        {"output_limit": -1},
        {"output_floor": -1},
        {"prefix": Prefix("short")},
        {"prefix": Prefix(DIGEST, "short")},
        {"prefix": Prefix(DIGEST, rest=Measure(1))},
        {"whole": Measure(1)},
    ],
)
def test_a_request_out_of_range_is_not(change):
    assert not is_asked(structs.replace(ASKED, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"text_bytes": -1},
        {"unseen": 1.5},
        {"unseen": math.nan},
        {"doubt": math.inf},
        {"counted": MOST_COUNT + 1},
        {"features": (math.nan, *MEASURE.features[1:])},
        {"features": (*MEASURE.features[1:], math.nan)},
        {"features": (math.inf, *MEASURE.features[1:])},
        {"features": (-1.0, *MEASURE.features[1:])},
        {"features": (MOST_COUNT * 2.0, *MEASURE.features[1:])},
        {"features": MEASURE.features[1:]},
    ],
)
def test_a_measure_out_of_range_is_not(change):
    measure = structs.replace(MEASURE, **change)
    assert not is_asked(structs.replace(ASKED, measure=measure))


def test_digests_of_their_length_are_sound():
    assert is_asked(structs.replace(ASKED, prefix=Prefix(DIGEST, DIGEST, rest=MEASURE)))
