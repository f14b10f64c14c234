"""The version has one place, and what GitHub runs exists."""

import ast
import re
import subprocess
import tomllib

import pytest
import yaml

import extproc
from tests.support.paths import ROOT

VERSION = extproc.__version__
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_changelog_has_a_section_of_the_version_below_the_unreleased():
    sections = re.findall(r"^## \[(.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert sections[:2] == ["Unreleased", VERSION]


def test_the_kustomization_names_the_version():
    text = (ROOT / "envoy" / "kubernetes" / "kustomization.yaml").read_text()
    assert yaml.safe_load(text)["images"] == [{"name": "dualpool", "newTag": VERSION}]


def test_a_release_of_another_tag_is_refused_before_anything_is_built():
    command = [ROOT / ".ci" / "release", "no-python", "v9.9.9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"needs the tag v{VERSION}" in done.stderr


def nodes_of_compiled(kind):
    """Yield the nodes of a kind in the modules that may be compiled."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    modules = project["tool"]["hatch"]["build"]["hooks"]["custom"]["modules"]
    for module in (module for module in modules if module.endswith(".py")):
        for node in ast.walk(ast.parse((ROOT / module).read_text())):
            if isinstance(node, kind):
                yield node


def test_no_class_has_arguments_that_its_compilation_would_ignore():
    for node in nodes_of_compiled(ast.ClassDef):
        if node.keywords:
            assert [ast.unparse(base) for base in node.bases] == ["Frozen"]
            assert [ast.unparse(each) for each in node.keywords] == ["frozen=True"]


def test_no_handler_waits_whose_exception_would_stay_behind():
    for handler in nodes_of_compiled(ast.ExceptHandler):
        assert not [node for node in ast.walk(handler) if isinstance(node, ast.Await)]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_runs_what_exists_and_pins_what_it_takes(file):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for job in yaml.safe_load(file.read_text())["jobs"].values():
        for step in job["steps"]:
            run = step.get("run", "")
            assert set(re.findall(r"\bmake ([a-z-]+)", run)) <= targets
            assert all((ROOT / path).exists() for path in re.findall(r"\.ci/[a-z-]+", run))
            assert re.fullmatch(r"[a-z/-]+@[0-9a-f]{40}", step.get("uses", f"a@{'0' * 40}"))
