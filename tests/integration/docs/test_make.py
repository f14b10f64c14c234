"""The make targets that the pages name, and that of the image."""

import os
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


def made_image(tmp_path, docker):
    """Run `make image` with a docker of our own; return what it did."""
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\n{docker}\n")
    program.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["make", "--no-print-directory", "image"],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_image_is_built_with_its_sbom_and_provenance(tmp_path):
    done = made_image(tmp_path, 'echo "docker $@"')
    asked = done.stdout.splitlines()[-1].split()
    assert done.returncode == 0
    assert asked[:3] == ["docker", "buildx", "build"]
    assert {"--sbom=true", "--provenance=mode=max"} <= set(asked)


def test_without_buildx_the_image_says_what_to_install(tmp_path):
    done = made_image(tmp_path, "exit 1")
    assert done.returncode != 0
    assert "docker buildx is missing. Install it" in done.stderr
