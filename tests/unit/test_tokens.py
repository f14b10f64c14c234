"""The tokens that a sequence needs."""

import pytest

from extproc.tokens import needed_tokens


@pytest.mark.parametrize(("output_limit", "needed"), [(16, 116), (0, 100), (None, 105)])
def test_a_stated_limit_counts_in_full_and_without_one_the_output(output_limit, needed):
    assert needed_tokens(100, output_limit, 5) == needed
