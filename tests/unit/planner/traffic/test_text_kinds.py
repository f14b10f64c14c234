"""The table of text kinds is complete and plausible; test_texts measures it again."""

import pytest

from extproc.budget.features import TEXT_FEATURES
from extproc.planner.traffic.text_kinds import KINDS

by_name = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def test_the_shares_add_up_to_all_requests():
    assert sum(kind.share for kind in KINDS) == pytest.approx(1)


def test_every_kind_has_a_name_of_its_own():
    assert len({kind.name for kind in KINDS}) == len(KINDS) == 11


@by_name
def test_rates_are_of_features_that_the_service_counts(kind):
    assert set(kind.rates) <= set(TEXT_FEATURES)


@by_name
def test_rates_too_small_to_matter_are_left_out(kind):
    assert min(kind.rates.values()) >= 0.002


@by_name
def test_no_text_varies_less_than_texts_of_a_kind_do(kind):
    assert kind.spread >= 0.05


@by_name
def test_a_token_has_a_plausible_number_of_bytes(kind):
    assert 1.5 < kind.bytes_per_token < 7
