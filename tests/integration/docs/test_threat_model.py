"""docs/threat-model.md names what exists."""

import re

import pytest

from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "threat-model.md"
TEXT = PAGE.read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/.]+)`", TEXT))))
def test_a_test_that_it_names_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_a_link_leads_somewhere(link):
    assert (PAGE.parent / link).exists()


def test_every_boundary_of_the_picture_has_its_promise():
    drawn = set(re.findall(r"──(\d)──", TEXT))
    assert set(re.findall(r"^\| (\d) \| [^|]+ \| [^|]+ \| [^|]+ \|$", TEXT, re.M)) == drawn
