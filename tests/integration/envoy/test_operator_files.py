"""Operators' files, right and with a planted fault, are valid to the real Envoy."""

import subprocess

import pytest
import yaml

from extproc.local.envoy import find_envoy
from tests.support.operator_files import FAULTS, NAMES, broken, load

# Envoy finds it at once, too.
REFUSED = ("no service for the filters",)


def fault(document):
    """Return Envoy's error; empty if the document is valid."""
    options = ("--mode", "validate", "--service-node", "test", "--service-cluster", "test")
    done = subprocess.run(
        [str(find_envoy()), "--config-yaml", yaml.safe_dump(document), *options, "--log-level",
         "error", "--disable-hot-restart"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_operators_file_is_valid(name):
    assert fault(load(name)) == ""


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in REFUSED])
def test_envoy_does_not_find_the_planted_faults(name):
    assert fault(broken(name)) == ""
