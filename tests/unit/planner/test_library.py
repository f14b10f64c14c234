"""The planner as a library: `from extproc.planner import ...`."""

import ast
import subprocess
import sys

import numpy as np
import pytest

from extproc import planner
from tests.support.paths import ROOT

PACKAGE = ROOT / "extproc" / "planner"


@pytest.mark.parametrize("name", planner.__all__)
def test_every_name_is_there_and_documented(name):
    found = getattr(planner, name)
    assert not callable(found) or found.__doc__


def test_every_import_is_offered():
    tree = ast.parse((PACKAGE / "public.py").read_text())
    imported = [
        a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names
    ]
    assert sorted(imported) == sorted(planner.__all__)


def test_the_example_of_the_docstring_runs(capsys):
    code = planner.__doc__.split("A plan for given lengths:\n")[1].split("\n`Planner`")[0]
    lengths = {
        "prompt": np.array([100, 9000]),
        "output": np.array([50, 500]),
        "counts": np.array([9.0, 1.0]),
    }
    exec("\n".join(line.strip() for line in code.splitlines()), lengths)
    assert "plit" in capsys.readouterr().out


def test_sizing_needs_neither_matplotlib_nor_the_network():
    code = (
        "import sys, extproc.planner.public;"
        "print([m for m in ('matplotlib', 'aiohttp', 'grpc', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
