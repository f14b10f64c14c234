"""The published distributions."""

import pytest

from extproc.planner.traffic.lengths import from_cdf
from extproc.planner.traffic.published import AGENTS, AZURE_2023, LMSYS, scaled


@pytest.mark.parametrize("cdf", [AZURE_2023, LMSYS, AGENTS])
def test_a_distribution_rises_to_one(cdf):
    shares = [share for _, share in cdf]
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize(("cdf", "alpha"), [(AZURE_2023, 0.99996), (LMSYS, 0.99653)])
def test_nearly_all_of_the_public_requests_are_within_8192_tokens(cdf, alpha):
    assert from_cdf("it", cdf).share_within(8192) == pytest.approx(alpha, abs=1e-5)


def test_scaled_lengths_keep_their_shares():
    assert scaled(AZURE_2023, 8)[7] == (256, AZURE_2023[7][1])
