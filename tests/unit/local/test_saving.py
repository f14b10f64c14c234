import pytest

from extproc.local.saving import Fleet, Load, split_fleet


# The paper's lambda of 1000 requests/s with 2.8 and 11.2 an instance.
@pytest.mark.parametrize(
    ("alpha", "fleet"), [(0.80, Fleet(358, 72, 72)), (0.68, Fleet(358, 61, 115))]
)
def test_the_papers_closed_form(alpha, fleet):
    assert split_fleet(alpha, Load()) == fleet


def test_the_papers_saving_at_alpha_08():
    assert round(split_fleet(0.8, Load()).saved, 3) == 0.598


def test_a_small_load_costs_instead_of_saving():
    load = Load(requests_per_s=0.5, long_per_s=1.0, rho=2.0)
    assert split_fleet(0.5, load).saved == -1.0
