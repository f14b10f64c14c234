"""Run Helm on the chart: the one of DUALPOOL_HELM (a folder, see .ci/get-helm), or of PATH."""

import os
import shutil
import subprocess

import pytest
import yaml

from tests.support.paths import ROOT

CHART = ROOT / "deploy" / "helm" / "dualpool"
NAME = "dualpool"


def helm(*arguments):
    """Return what the command did; skips the test without Helm."""
    folder = os.environ.get("DUALPOOL_HELM", os.path.expanduser("~/.cache/dualpool-helm"))
    program = shutil.which("helm", path=f"{folder}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("no helm: .ci/get-helm PYTHON DIR, and DUALPOOL_HELM=DIR")
    command = [program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rendered(*arguments, namespace=NAME, release=NAME):
    """Return the objects that an installation would create, hooks included."""
    done = helm("template", release, CHART, "--namespace", namespace, *arguments)
    assert done.returncode == 0, done.stderr
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def refused(*arguments):
    """Return Helm's error without its log lines."""
    done = helm("template", NAME, CHART, "--namespace", NAME, *arguments)
    assert done.returncode != 0
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("level="))
