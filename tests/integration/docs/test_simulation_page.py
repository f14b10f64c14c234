"""The simulation's page: its Python runs."""

import re

import pytest

from tests.support.paths import ROOT
from tests.support.small_fleets import TWO, trace

PAGE = ROOT / "docs" / "simulation.md"


def test_the_example_runs(capsys: pytest.CaptureFixture[str]):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(code, {"fleet": TWO, "trace": trace([(1, 10, 5)] * 20)})
    assert "Figures(name='fleet'" in capsys.readouterr().out
