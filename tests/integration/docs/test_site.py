"""The site: what it is made of agrees with the code. `make site` builds it, strictly."""

import re
import sys

import pytest
import yaml
from prometheus_client import CollectorRegistry

from extproc.config.settings import SECTIONS
from extproc.stream.metrics import Metrics
from tests.support.paths import ROOT
from tests.unit.test_cli import COMMANDS


@pytest.fixture(scope="module")
def site():
    """The modules that write pages and pictures."""
    folder = str(ROOT / "docs" / "site")
    sys.path.insert(0, folder)
    import pictures  # noqa: PLC0415 - found once the folder is on the path
    import reference  # noqa: PLC0415

    yield pictures, reference
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def pages(site):
    return site[1].pages()


def test_the_comments_of_the_settings_have_the_room_of_the_headings(pages):
    assert pages["reference/settings.md"].startswith("---\nhide: [toc]\n---\n\n# Settings\n")


def test_every_setting_is_in_the_reference(pages):
    for name, section in SECTIONS.items():
        assert name in pages["reference/settings.md"]
        for key in section.model_fields:
            if name != "models":  # a list that is empty by default
                assert f"{key}: " in pages["reference/settings.md"]


def test_every_metric_is_in_the_reference(pages):
    registry = CollectorRegistry()
    Metrics(registry)
    for family in registry.collect():
        assert f"| `{family.name}` | {family.type} |" in pages["reference/metrics.md"]


def test_what_is_learnt_is_in_the_reference(pages):
    for name in ("category_relative_error", "model_surprise", "limit_misroute_forecast"):
        assert f"| `dualpool_{name}` | gauge |" in pages["reference/metrics.md"]


def test_every_command_is_in_the_reference(pages):
    for command in COMMANDS:
        assert f"\n## {command}\n" in pages["reference/commands.md"]


def test_every_header_is_in_the_reference(pages):
    source = (ROOT / "extproc" / "names.py").read_text()
    for name in re.findall(r'"(x-llm-\w+)"', source):
        assert f"| `{name}` |" in pages["reference/headers.md"]


def test_the_pictures_are_those_that_the_script_draws(site):
    for name, text in site[0].pictures().items():
        assert (ROOT / "docs" / "images" / name).read_text() == text + "\n"


def test_every_page_has_a_place_in_the_navigation():
    named = re.findall(r"\S+\.md", (ROOT / "mkdocs.yml").read_text())
    folders = (ROOT / "docs", ROOT / "docs" / "how-to")
    written = {str(f.relative_to(ROOT / "docs")) for d in folders for f in d.glob("*.md")}
    assert written <= set(named)


def test_nothing_is_loaded_from_elsewhere():
    theme = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["theme"]
    assert theme["font"] is False


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) < 1200
