"""The benchmark of how soon a change of tokenizer is learnt, run small."""

import pytest

from benchmarks import recovery


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    for name, value in {"_CASES": 200, "_BEFORE": 1500, "_BEFORE_S": 1.0, "_AFTER": 5000}.items():
        monkeypatch.setattr(recovery, name, value)


def test_a_change_of_tokenizer_is_learnt_and_told(capsys):
    assert recovery.main(["--rates", "500", "--replicas", "1", "3"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[3:] if line]
    assert [row[:2] for row in rows] == [["500", "1"], ["500", "3"]]
    assert all(0 < float(row[6]) < 10 for row in rows)


def test_what_is_not_learnt_is_told(capsys, monkeypatch):
    monkeypatch.setattr(recovery, "_NO_WORSE", 0.0)
    monkeypatch.setattr(recovery, "_AFTER", 400)
    recovery.main(["--rates", "500", "--replicas", "1"])
    assert capsys.readouterr().out.split()[-3:-1] == ["not", "not"]
