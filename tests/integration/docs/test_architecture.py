"""The architecture page: its picture is the import contract, and what it names exists."""

import re
import tomllib

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def test_the_picture_shows_the_layers_of_the_import_contract():
    (picture,) = re.findall(r"```layers\n(.*?)```", PAGE, re.DOTALL)
    shown = [re.match(r"\w+( \| \w+)*", line)[0] for line in picture.splitlines()]
    assert shown == CONTRACTS["contracts"][0]["layers"]


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:extproc|tests|deploy|envoy)/[\w/.]+)`", PAGE)))
)
def test_a_path_exists(path):
    assert (ROOT / path).exists() or (ROOT / "extproc" / path).exists()


@pytest.mark.parametrize(
    "module",
    sorted(
        set(re.findall(r"\b(?:budget|request|response|routing|service|stream)/[a-z]+\b", PAGE))
        | set(re.findall(r"\b(?:budget|config|request|response|routing)/[a-z]+\.py\b", PAGE))
    ),
)
def test_a_module_exists(module):
    assert (ROOT / "extproc" / module.removesuffix(".py")).with_suffix(".py").exists()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", PAGE))))
def test_a_link_leads_somewhere(link):
    assert (ROOT / "docs" / link).exists()
