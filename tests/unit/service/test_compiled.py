"""What a serving process loads, where the package is compiled."""

import subprocess
import sys

import pytest

from extproc.service.compiled import is_compiled


@pytest.mark.skipif(not is_compiled(), reason="interpreted, numpy multiplies")
def test_what_serves_loads_no_numpy():
    loaded = "import sys, extproc.service.serve; print('numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", loaded], text=True) == "False\n"
