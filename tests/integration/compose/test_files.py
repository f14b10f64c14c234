"""Dockerfile, docker-compose.yml and what they are made of, without an engine."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from extproc.config.load import load
from tests.support.paths import ROOT

WRITE_SETTINGS = ROOT / "deploy" / "compose" / "write_settings.py"
SHARED = ("shared", "shared-gpu", "shared-cpu")
PROFILES = ("simulated", "gpu", "cpu", *SHARED)
SHARED_FILE = ROOT / "deploy" / "compose" / "shared.yaml"
_PIN = re.compile(r"^([a-z0-9-]+)==([^ ;]+)", re.MULTILINE)


def run(program, *arguments, **variables):
    path = Path(sys.executable).with_name(program)
    if not path.exists():
        pytest.skip(f"{program} is not installed: pip install '.[dev]'")
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


def test_the_service_image_can_count_by_a_tokenizer():
    wanted = project()["project"]["optional-dependencies"]["tokenizer"]
    assert satisfied(wanted, pinned("requirements-tokenizer.txt"))


def test_what_the_wheel_is_built_with_is_what_the_project_asks_for():
    compiling = project()["tool"]["hatch"]["build"]["hooks"]["custom"]["dependencies"]
    wanted = project()["build-system"]["requires"] + compiling
    assert satisfied(wanted, pinned("requirements-build.txt"))


def test_what_the_pools_need_beside_is_what_the_project_asks_for():
    extras = project()["project"]["optional-dependencies"]
    both = extras["local"] + extras["commands"]
    needed = [line for line in both if line.startswith(("bpe-openai", "pydantic"))]
    assert satisfied(needed, pinned("requirements-pool.txt"))


def test_all_requirements_have_hashes_and_no_addresses():
    for path in (ROOT / "deploy").glob("requirements*.txt"):
        text = path.read_text()
        assert "://" not in text
        assert all(entry.count("--hash=sha256:") for entry in re.split(r"\n(?=[a-z0-9])", text)[1:])


def test_every_base_of_the_images_is_pinned_by_digest():
    bases = re.findall(r"^FROM (\S+) AS", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    pulled = {base for base in bases if ":" in base}
    assert len(pulled) == 1
    assert re.fullmatch(r"python:3\.12-slim@sha256:[0-9a-f]{64}", *pulled)


def test_the_dockerfile_passes_hadolint():
    assert run("hadolint", "Dockerfile").stdout == ""


def test_the_stack_passes_the_compose_linter():
    done = run("compose-lint", "check", "--fail-on", "low", "--strict-config", "docker-compose.yml")
    assert done.returncode == 0, done.stdout


SIZES = ("MAX_MODEL_LEN", "MAX_NUM_SEQS", "MAX_NUM_BATCHED_TOKENS", "GPU_MEMORY", "CPU_KV_GIB")
SERVER = "/etc/dualpool/run.sh"
THREE = ("-f", "docker-compose.yml", "-f", "deploy/compose/three-pools.yml")


def env_values():
    lines = (ROOT / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")


def pool_services(services):
    """Return the flags' file of each pool by the names that Envoy finds it by."""
    return {
        alias: service["entrypoint"][2]
        for name, service in services.items()
        if ".args" in str(service.get("entrypoint"))
        for alias in (service["networks"]["pools"] or {}).get("aliases", [name])
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_two_pools_which_envoy_finds_by_the_same_names(profile):
    assert sorted(pool_services(composed(profile))) == ["long", "short"]


def test_a_pool_is_started_with_the_flags_of_its_name():
    simulated = {name: f"/run/dualpool/{name}.args" for name in ("short", "long")}
    for end in ("gpu", "cpu"):
        own = {name: f"/run/dualpool/{name}-{end}.args" for name in ("short", "long")}
        assert pool_services(composed(end)) == pool_services(composed(f"shared-{end}")) == own
    assert pool_services(composed("simulated")) == pool_services(composed("shared")) == simulated


@pytest.mark.parametrize("profile", PROFILES)
def test_no_container_but_settings_is_replaced_for_a_new_size(profile):
    changed = {f"{pool}_{end}": "7" for pool in ("SHORT", "LONG") for end in SIZES}
    before, after = composed(profile), composed(profile, **changed)
    assert {name for name in before if before[name] != after[name]} == {"settings"}


@pytest.mark.parametrize("profile", PROFILES)
def test_whoever_reads_the_written_files_starts_anew_when_they_change(profile):
    services = composed(profile)
    readers = {n for n, each in services.items() if "/run/dualpool'" in str(each.get("volumes"))}
    restarting = {n for n, each in services.items() if SERVER in str(each.get("entrypoint"))}
    assert readers - {"settings"} == restarting
    assert all(services[name]["restart"] == "unless-stopped" for name in restarting)


def test_the_pools_of_two_profiles_never_meet():
    for profile in PROFILES:
        shares = profile in SHARED
        assert len(composed(profile)) == 7 + 2 * shares  # Valkey, and who makes certificates
        assert ("dualpool" in composed(profile)) == shares


def test_a_third_pool_is_one_more_file():
    done = run("docker-compose", *THREE, "--profile", "simulated", "config")
    services = yaml.safe_load(done.stdout)["services"]
    assert sorted(pool_services(services)) == ["long", "middle", "short"]
    assert services["envoy"]["depends_on"]["middle"]["condition"] == "service_healthy"


def test_the_service_gets_a_tokenizer_by_one_more_file(tmp_path):
    text = (ROOT / "docs" / "how-to" / "tuning.md").read_text()
    (tmp_path / "mine.yml").write_text(re.findall(r"^ *(services: .*)$", text, re.MULTILINE)[0])
    files = ("-f", "docker-compose.yml", "-f", str(tmp_path / "mine.yml"))
    done = run("docker-compose", *files, "--profile", "simulated", "config")
    service = yaml.safe_load(done.stdout)["services"]["dualpool-single"]
    assert mounts(service)["/srv/models"]
    assert len(service["volumes"]) > 1


def mounts(service):
    return {volume["source"]: volume.get("read_only", False) for volume in service["volumes"]}


@pytest.mark.parametrize("profile", ["simulated", "gpu", "cpu"])
def test_envoy_and_the_service_alone_share_the_volume_of_the_socket(profile):
    sharing = {
        name: (mounts(service)["socket"], service["user"], service.get("group_add"))
        for name, service in composed(profile).items()
        if "socket" in mounts(service)
    }
    assert sharing == {
        "dualpool-single": (False, "10001:10001", None),
        "envoy": (True, "101:101", ["10001"]),
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_what_finds_the_service_and_envoy_by_name_does_in_each_profile(profile):
    services = composed(profile)
    found = {"dualpool": 0, "envoy": 0}
    for name, service in services.items():
        for alias in (service.get("networks", {}).get("pools") or {}).get("aliases", [name]):
            found[alias] = found.get(alias, 0) + 1
    assert found["dualpool"] == found["envoy"] == 1


def test_only_the_replicas_reach_the_store():
    services = composed("shared")
    on = {name for name, service in services.items() if "store" in (service.get("networks") or {})}
    assert on == {"dualpool", "valkey"}
    assert list(services["valkey"]["networks"]) == ["store"]


def test_replicas_have_ports_enough_on_the_host():
    [port] = composed("shared")["dualpool"]["ports"]
    assert port["published"] == "8081-8089"


@pytest.mark.parametrize("name", ["envoy/dualpool.yaml", "deploy/compose/three-pools.yaml"])
def test_one_service_takes_decisions_from_its_socket_alone(name):
    listen = load(ROOT / name).listen
    assert listen.grpc == "unix:/run/dualpool-socket/service.sock"


@pytest.mark.parametrize("source", ["envoy/dualpool.yaml", "deploy/compose/three-pools.yaml"])
def test_replicas_differ_from_one_service_in_how_they_are_reached_and_keep_their_state(
    tmp_path, source
):
    assert written(tmp_path, source=source).returncode == 0
    single, shared = (load(tmp_path / end / "dualpool.yaml") for end in ("", "shared"))
    assert shared.listen.tls_client_ca
    assert (single.state, shared.state) == (
        "file:/var/lib/dualpool/state",
        "redis://valkey:6379",
    )
    alike = {"listen": single.listen, "envoy": single.envoy, "state": single.state}
    assert shared.model_copy(update=alike) == single
    assert "/run/dualpool-tls/envoy/tls.crt" in (tmp_path / "shared" / "envoy.yaml").read_text()


def test_the_state_of_one_service_is_in_a_volume_that_its_user_owns():
    single = composed("simulated")["dualpool-single"]
    [folder] = [v["target"] for v in single["volumes"] if v["source"] == "state"]
    assert load(ROOT / "envoy" / "dualpool.yaml").state == f"file:{folder}/state"
    [made] = re.findall(
        r"install -d -o 10001 -g 10001 -m 750 [^&]*", (ROOT / "Dockerfile").read_text()
    )
    assert folder in made.split()


def test_a_key_is_seen_by_its_side_alone():
    services = composed("shared")
    seen = {
        name: {volume for volume in mounts(service) if volume.endswith("-tls")}
        for name, service in services.items()
        if service.get("volumes")
    }
    assert {name: volumes for name, volumes in seen.items() if volumes} == {
        "certificates": {"service-tls", "envoy-tls"},
        "dualpool": {"service-tls"},
        "envoy-shared": {"envoy-tls"},
    }


def certificates(*arguments, **variables):
    return subprocess.run(
        ["bash", ROOT / "deploy" / "certificates.sh", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_certificates_that_exist_stay(tmp_path):
    assert certificates(tmp_path, "a.example").returncode == 0
    before = (tmp_path / "service" / "tls.crt").read_bytes()
    again = certificates(tmp_path, "a.example")
    assert again.returncode == 0
    assert "exists: nothing was changed" in again.stdout
    assert (tmp_path / "service" / "tls.crt").read_bytes() == before


def test_a_key_is_read_by_owner_and_group_alone(tmp_path):
    certificates(tmp_path, "a.example")
    keys = list(tmp_path.glob("*/tls.key"))
    assert [key.stat().st_mode & 0o777 for key in keys] == [0o640, 0o640]


def test_certificates_that_cannot_be_made_say_why_and_leave_nothing(tmp_path):
    done = certificates(tmp_path / "new", "a.example", DAYS="many")
    assert done.returncode == 1
    assert "many" in done.stderr
    assert not (tmp_path / "new").exists()


def test_certificates_need_a_host(tmp_path):
    done = certificates(tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("the host of the service, after the folder\n")


def written(folder, *options, source="envoy/dualpool.yaml", env_file=".env", **sizes):
    return subprocess.run(
        [sys.executable, WRITE_SETTINGS, ROOT / source, folder, *options],
        env=os.environ
        | {"ENV_FILE": str(ROOT / env_file), "SHARED_FILE": str(SHARED_FILE)}
        | env_values()
        | sizes,
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


def test_the_flags_of_a_pool_are_those_of_env(tmp_path):
    written(tmp_path)
    plain = ["--max-model-len=8192", "--max-num-seqs=128", "--max-num-batched-tokens=2048"]
    assert (tmp_path / "short.args").read_text().split() == plain
    memory = "--gpu-memory-utilization=0.9"
    assert (tmp_path / "short-gpu.args").read_text().split() == [*plain, memory]
    cache = "VLLM_CPU_KVCACHE_SPACE=2"
    assert (tmp_path / "short-cpu.args").read_text().split() == [*plain, cache]


def test_the_windows_of_env_write_the_file_that_the_repository_shows(tmp_path):
    assert written(tmp_path).returncode == 0
    shown = (ROOT / "envoy" / "envoy.yaml").read_text()
    assert (tmp_path / "envoy.yaml").read_text() == shown


def test_a_third_pool_has_its_flags(tmp_path):
    sizes = {"MIDDLE_MAX_MODEL_LEN": "16384", "MIDDLE_MAX_NUM_SEQS": "9"}
    assert written(tmp_path, source="deploy/compose/three-pools.yaml", **sizes).returncode == 0
    expected = ["--max-model-len=16384", "--max-num-seqs=9"]
    assert (tmp_path / "middle.args").read_text().split() == expected


def test_files_that_stay_the_same_are_not_touched(tmp_path):
    written(tmp_path)
    before = {file.name: file.stat().st_ino for file in tmp_path.glob("*.args")}
    written(tmp_path, LONG_MAX_NUM_SEQS="5")
    after = {file.name: file.stat().st_ino for file in tmp_path.glob("*.args")}
    assert {name for name in after if after[name] != before[name]} == {
        "long.args",
        "long-gpu.args",
        "long-cpu.args",
    }


WHOLE = "is not allowed: a whole number from 1 to 1000000000"
TYPOS = {
    "SHORT_MAX_MODEL_LEN": ("8192x", f"SHORT_MAX_MODEL_LEN: '8192x' {WHOLE}"),
    "LONG_MAX_NUM_SEQS": ("0", f"LONG_MAX_NUM_SEQS: '0' {WHOLE}"),
    "LONG_MAX_NUM_BATCHED_TOKENS": ("2,048", f"LONG_MAX_NUM_BATCHED_TOKENS: '2,048' {WHOLE}"),
    "SHORT_CPU_KV_GIB": ("2G", f"SHORT_CPU_KV_GIB: '2G' {WHOLE}"),
    "SHORT_GPU_MEMORY": (
        "90",
        "SHORT_GPU_MEMORY: '90' is not allowed: a number above 0 and up to 1",
    ),
    "LONG_MAX_MODEL_LEN": (
        "1111",
        "LONG_MAX_MODEL_LEN: 1111 is not allowed: more than the 8192 of pools[0]",
    ),
}


@pytest.mark.parametrize("name", TYPOS)
def test_a_typo_is_named_by_its_line_and_the_old_files_stay(tmp_path, name):
    (tmp_path / "dualpool.yaml").write_text("old")
    value, text = TYPOS[name]
    lines = [
        f"{name}={value}" if line.startswith(f"{name}=") else line
        for line in (ROOT / ".env").read_text().splitlines()
    ]
    number = lines.index(f"{name}={value}") + 1
    (tmp_path / ".env").write_text("\n".join(lines))
    done = written(tmp_path, env_file=tmp_path / ".env", **{name: value})
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f".env:{number}: {text}",
        "nothing was changed: what runs keeps its settings",
    ]
    assert (tmp_path / "dualpool.yaml").read_text() == "old"
    assert not (tmp_path / "envoy.yaml").exists()


def test_a_value_of_the_shell_is_named_as_such(tmp_path):
    done = written(tmp_path, SHORT_MAX_MODEL_LEN="many")
    assert done.stderr.startswith("environment: SHORT_MAX_MODEL_LEN: 'many' is not allowed: ")


def test_a_fault_of_the_settings_file_is_named_by_its_own_line(tmp_path):
    source = tmp_path / "mine.yaml"
    source.write_text((ROOT / "envoy" / "dualpool.yaml").read_text() + "workrs: 2\n")
    number = len(source.read_text().splitlines())
    done = written(tmp_path, source=source)
    assert done.returncode == 2
    assert done.stderr.startswith(f"envoy/dualpool.yaml:{number}: unknown key 'workrs'")


def test_a_check_writes_nothing(tmp_path):
    done = written(tmp_path, "--check")
    assert done.returncode == 0
    assert done.stdout == ".env and envoy/dualpool.yaml are right: short 8192, long 65536\n"
    assert list(tmp_path.iterdir()) == []


def run_script(folder):
    """Write run.sh so that its watcher signals the program itself, process 1 of a container."""
    text = (ROOT / "deploy" / "compose" / "run.sh").read_text()
    script = folder / "run.sh"
    for name in ("HUP", "TERM"):
        assert f"kill -{name} 1" in text
        text = text.replace(f"kill -{name} 1", f"kill -{name} $$")
    script.write_text(text.replace("sleep 2", "sleep 0.1"))
    return script


def test_the_service_loads_its_file_anew_and_restarts_only_if_it_must(tmp_path):
    script, file = run_script(tmp_path), tmp_path / "dualpool.yaml"
    text = "# settings\nlisten:\n  http: 0.0.0.0:8081\nbudget: {target: 0.001}\n"
    file.write_text(text)
    program = (
        "import signal, time; signal.signal(signal.SIGHUP, lambda *_: print('loads', flush=True));"
        "print('runs', flush=True); [time.sleep(1) for _ in range(60)]"
    )
    command = ["bash", script, file, sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "runs\n"
        for target in ("0.002", "0.003"):
            file.write_text(text.replace("0.001", target))
            assert running.stdout.readline() == "loads\n"
        file.write_text(text.replace("8081", "8082"))
        assert running.wait(60) == -signal.SIGTERM


def test_the_program_ends_once_its_file_changes(tmp_path):
    script, file = run_script(tmp_path), tmp_path / "a.args"
    file.write_text("--a=7\nSPACE=2\n--b=8\n")
    program = (
        "import os, sys, time; print(sys.argv[1:], os.environ['SPACE'], flush=True); time.sleep(60)"
    )
    command = ["bash", script, file, sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "['--a=7', '--b=8'] 2\n"
        file.write_text("--a=9\n")
        assert running.wait(60) == -signal.SIGTERM
