"""What was learnt, as the page shows it."""

from extproc.budget.values import Learnt
from extproc.page.learnt import MOST, describe_learnt


def test_the_categories_with_most_answers_come_first_and_the_rest_is_counted():
    rows = {f"prose/m{i}": {"samples": i, "bytes_per_token": 4.0} for i in range(1000)}
    found = describe_learnt(Learnt(categories=rows))
    assert [row["samples"] for row in found["categories"][:2]] == [999, 998]
    assert len(found["categories"]) == MOST
    assert found["more"] == 1000 - MOST


def test_a_limit_has_its_forecast():
    limit = {"target": 0.001, "misroute_forecast": 0.0007, "risk_level": 0.1, "other": 1.0}
    [row] = describe_learnt(Learnt(limits={"8192": limit}))["limits"]
    assert row == {"name": "8192", "target": 0.001, "misroute_forecast": 0.0007, "risk_level": 0.1}


def test_what_an_estimator_does_not_know_is_left_out():
    paper = Learnt(categories={"prose/m": {"bytes_per_token": 4.0, "samples": 2, "deviation": 1.0}})
    [row] = describe_learnt(paper)["categories"]
    assert row == {"name": "prose/m", "bytes_per_token": 4.0, "samples": 2}
