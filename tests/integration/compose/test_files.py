"""Dockerfile, docker-compose.yml and what they are made of, without an engine."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.paths import ROOT

WRITE_SETTINGS = ROOT / "deploy" / "compose" / "write_settings.py"
PROFILES = ("simulated", "gpu", "cpu")
_PIN = re.compile(r"^([a-z0-9-]+)==([^ ;]+)", re.MULTILINE)


def run(program, *arguments, **variables):
    path = Path(sys.executable).with_name(program)
    if not path.exists():
        pytest.skip(f"{program} is not installed: pip install 'dualpool[dev]'")
    return subprocess.run(
        [path, *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def composed(profile, **variables):
    done = run("docker-compose", "--profile", profile, "config", **variables)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["services"]


def pinned(name):
    return dict(_PIN.findall((ROOT / "deploy" / name).read_text()))


def satisfied(wanted, pins):
    return all(
        line.specifier.contains(pins[line.name.lower()]) for line in map(Requirement, wanted)
    )


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_what_the_service_is_built_with_is_what_the_project_asks_for():
    assert satisfied(project()["project"]["dependencies"], pinned("requirements.txt"))


def test_the_service_image_can_render_envoys_configuration():
    commands = project()["project"]["optional-dependencies"]["commands"]
    templates = [line for line in commands if line.startswith("jinja2")]
    assert satisfied(templates, pinned("requirements.txt"))


def test_what_the_wheel_is_built_with_is_what_the_project_asks_for():
    assert satisfied(project()["build-system"]["requires"], pinned("requirements-build.txt"))


def test_the_pools_tokenizer_is_what_the_project_asks_for():
    local = project()["project"]["optional-dependencies"]["local"]
    tokenizer = [line for line in local if line.startswith("bpe-openai")]
    assert satisfied(tokenizer, pinned("requirements-pool.txt"))


def test_all_requirements_have_hashes_and_no_addresses():
    for path in (ROOT / "deploy").glob("requirements*.txt"):
        text = path.read_text()
        assert "://" not in text
        assert all(entry.count("--hash=sha256:") for entry in re.split(r"\n(?=[a-z0-9])", text)[1:])


def test_the_dockerfile_passes_hadolint():
    assert run("hadolint", "Dockerfile").stdout == ""


def test_the_stack_passes_the_compose_linter():
    done = run("compose-lint", "check", "--fail-on", "low", "--strict-config", "docker-compose.yml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_two_pools_which_envoy_finds_by_the_same_names(profile):
    services = composed(profile)
    names = [
        alias
        for name, service in services.items()
        if "--max-model-len" in str(service.get("command"))
        for alias in (service["networks"]["pools"] or {}).get("aliases", [name])
    ]
    assert sorted(names) == ["long", "short"]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_windows_of_the_pools_are_those_of_the_settings(profile):
    services = composed(profile, SHORT_MAX_MODEL_LEN="1111", LONG_MAX_MODEL_LEN="2222")
    flags = [flag for service in services.values() for flag in service.get("command") or ()]
    assert {"--max-model-len=1111", "--max-model-len=2222"} <= set(flags)
    told = services["settings"]["environment"]
    assert (told["SHORT_MAX_MODEL_LEN"], told["LONG_MAX_MODEL_LEN"]) == ("1111", "2222")


@pytest.mark.parametrize("service", ["dualpool", "envoy"])
def test_another_window_replaces_who_has_read_the_old_one(service):
    labels = composed("simulated", SHORT_MAX_MODEL_LEN="1111")[service]["labels"]
    assert labels == {"dualpool.windows": "1111 65536"}


def test_the_pools_of_two_profiles_never_meet():
    assert all(len(composed(profile)) == 7 for profile in PROFILES)


def written(folder, **windows):
    source = ROOT / "envoy" / "dualpool.yaml"
    return subprocess.run(
        [sys.executable, WRITE_SETTINGS, source, folder],
        env=os.environ | windows,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_settings_and_envoys_file_have_the_windows_of_the_environment(tmp_path):
    assert written(tmp_path, SHORT_MAX_MODEL_LEN="1111", LONG_MAX_MODEL_LEN="2222").returncode == 0
    pools = yaml.safe_load((tmp_path / "dualpool.yaml").read_text())["pools"]
    assert [pool["max_model_len"] for pool in pools] == [1111, 2222]
    assert "max_model_len: 2222" in (tmp_path / "envoy.yaml").read_text()


def test_the_windows_of_env_write_the_file_that_the_repository_shows(tmp_path):
    lines = (ROOT / ".env").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if "_MAX_MODEL_LEN" in line)
    assert written(tmp_path, **values).returncode == 0
    shown = (ROOT / "envoy" / "envoy.yaml").read_text()
    assert (tmp_path / "envoy.yaml").read_text() == shown


def test_wrong_windows_leave_the_old_files_as_they_are(tmp_path):
    (tmp_path / "dualpool.yaml").write_text("old")
    done = written(tmp_path, SHORT_MAX_MODEL_LEN="2222", LONG_MAX_MODEL_LEN="1111")
    assert done.returncode == 2
    assert "max_model_len: 1111 is not allowed: more than the 2222 of pools[0]" in done.stderr
    assert (tmp_path / "dualpool.yaml").read_text() == "old"
