"""Simulations spread over processes and over a Dask cluster."""

from functools import partial

import joblib
import pytest

from extproc.planner_commands.sweep import SweepError, SweepOptions, spreading

TASKS = [partial(pow, base, 2) for base in range(5)]
SQUARES = [0, 1, 4, 9, 16]


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_results_are_in_the_order_of_the_tasks(jobs, capsys):
    with spreading(SweepOptions(jobs=jobs)) as spread:
        assert list(spread("Squares", TASKS)) == SQUARES
    assert capsys.readouterr().err.splitlines()[-1].startswith("Squares: 5 of 5")


def test_by_default_there_is_a_process_for_each_cpu(monkeypatch):
    asked = []

    def parallel(n_jobs, **_):
        asked.append(n_jobs)
        return lambda calls: iter([call() for _, (call,), _ in calls])

    monkeypatch.setattr(joblib, "Parallel", parallel)
    with spreading(SweepOptions()) as spread:
        assert list(spread("Squares", TASKS)) == SQUARES
    assert asked == [-1]


def test_fewer_than_one_process_is_refused():
    with pytest.raises(SweepError, match="--jobs: -1 is not allowed"), spreading(SweepOptions(-1)):
        pass


def test_a_cluster_that_is_not_there_is_named():
    pytest.importorskip("distributed", reason="--cluster needs distributed")
    with (
        pytest.raises(SweepError, match=r"--cluster: nonsense://: .*allowed: tcp://HOST:PORT"),
        spreading(SweepOptions(cluster="nonsense://")),
    ):
        pass
