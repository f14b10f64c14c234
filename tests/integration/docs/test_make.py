"""The make targets that the pages name."""

import re
import subprocess

from tests.support.paths import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_alone_lists_every_target():
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^  make ([a-z-]+)  +\w", done.stdout, re.MULTILINE))
    assert listed == TARGETS - {"debian-venv"}


def test_every_target_that_a_page_names_exists():
    for page in PAGES:
        for line in re.findall(r"(?:^|`)make((?: [a-z-]+)+)", page.read_text(), re.MULTILINE):
            assert set(line.split()) <= TARGETS, page
