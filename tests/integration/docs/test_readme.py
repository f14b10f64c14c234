"""The README and the pages it leads to: commands run, links lead somewhere, lists are complete."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from extproc.config.load import load
from extproc.config.settings import DROPPED, ModelSettings
from extproc.request.reader import Endpoint
from extproc.service.explain import explain
from tests.support.local_stack import fetch, running, wait_for
from tests.support.paths import ROOT

PAGES = [
    ROOT / name
    for name in (
        "README.md",
        *(f"docs/{page}.md" for page in ("concepts", "doctor", "evaluation", "limits", "operate")),
        *("docs/comparison.md", "docs/tutorial.md"),
        *(f"docs/how-to/{page}.md" for page in ("compose", "envoy", "kubernetes", "local")),
        *(f"docs/how-to/{page}.md" for page in ("tenants", "tuning")),
    )
]
TEXT = "\n".join(page.read_text() for page in PAGES)
TUTORIAL = ROOT / "docs" / "tutorial.md"
PLANNING = ROOT / "docs" / "planning.md"
LINKS = [
    pytest.param(page, link, id=f"{page.relative_to(ROOT)}: {link}")
    for page in (*PAGES, PLANNING)
    for link in sorted(set(re.findall(r"\]\((?!http)([^)#]+)", page.read_text())))
]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
CONSOLE = [text for kind, text in BLOCKS if kind == "console"]
# Where each of the others runs.
ELSEWHERE = {
    ".ci/run": {"make demo", "make test"},
    "tests/integration/vllm": {
        "dualpool demo --pools http://127.0.0.1:8101,http://127.0.0.1:8102",
        "dualpool profile http://127.0.0.1:8000 --out mine.json",
    },
    "tests/integration/compose/test_compose.py": {
        "docker compose up --detach --wait",
        "curl -s -D - http://127.0.0.1:10000/v1/chat/completions -H 'content-type: application/json' \\",  # noqa: E501
        """-d '{"model": "simulated", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}'""",  # noqa: E501
        "dualpool demo --compose http://127.0.0.1:10000",
        "docker compose run --rm check",
        "docker compose run --rm --no-deps doctor",
        "docker compose up --detach settings",
        "docker compose --profile gpu up",
        "docker compose --profile cpu up",
    },
    "tests/integration/compose/test_shared.py": {
        "docker compose --profile shared up --detach --wait --scale dualpool=3",
        "docker compose --profile shared run --rm --no-deps doctor-shared",
    },
    "tests/integration/envoy/test_shadow.py": {
        "cp dualpool.yaml shadow.yaml && echo 'shadow: true' >> shadow.yaml",
        "dualpool config envoy shadow.yaml > envoy.yaml",
        "dualpool serve --config shadow.yaml",
        "curl -s http://127.0.0.1:8081/metrics | grep dualpool_verdicts_total",
        "dualpool plan --from http://127.0.0.1:8081 --config shadow.yaml --rate 20",
    },
    "tests/unit/planner_commands": {
        "dualpool plan docs/examples/lmsys.csv --rate 200 --slo-ttft-ms 500",
        "dualpool simulate docs/examples/azure-2023.csv --rate 100 --window 4096,65536 --compare",
    },
    "tests/unit/envoy": {
        "dualpool config envoy dualpool.yaml > envoy.yaml",
        "dualpool config envoy dualpool.yaml --fragment",
        "dualpool check dualpool.yaml --envoy my-envoy.yaml",
        "dualpool config istio settings.yaml --gateway NAMESPACE/APP",
        "dualpool config envoy-gateway settings.yaml --gateway NAMESPACE/NAME",
    },
}


@pytest.mark.parametrize("block", CONSOLE)
def test_a_console_block_prints_what_it_shows(block, tmp_path):
    # The tutorial runs the command where `make demo` has installed it.
    command, _, shown = block.removeprefix("$ ").replace(".venv/bin/", "").partition("\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout + done.stderr == shown


def test_the_tutorial_runs_the_installed_command_alike():
    blocks = re.findall(r"^```\w+\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    words = [word for block in blocks for word in block.split() if word.endswith("dualpool")]
    assert set(words) == {".venv/bin/dualpool"}


def test_every_command_is_run_somewhere():
    # Those of the plans are at the head of their page.
    head = PLANNING.read_text().partition("## A plan")[0]
    commands = "".join(text for kind, text in BLOCKS if kind == "sh").splitlines()
    commands += "".join(re.findall(r"^```sh\n(.*?)^```", head, re.M | re.S)).splitlines()
    known = set().union(*ELSEWHERE.values())
    assert {line.partition("#")[0].strip() for line in commands} == known
    assert all((ROOT / place).exists() for place in ELSEWHERE)


def test_the_settings_can_be_loaded(tmp_path):
    texts = [text for kind, text in BLOCKS if kind == "yaml"]
    file = tmp_path / "dualpool.yaml"
    for text in texts:
        file.write_text(text)
        load(file)
    found = []
    for text in texts:
        if "pools:" in text:
            file.write_text(text)
            found.append([pool.name for pool in load(file).pools])
    assert found == [["short", "medium", "long"], ["short", "long"]]


def test_every_key_of_a_model_is_explained():
    page = (ROOT / "docs" / "operate.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, re.MULTILINE))
    assert rows.keys() >= ModelSettings.model_fields.keys()
    assert tuple(re.findall(r"`(\w+)`", rows["drops"])) == DROPPED


def test_every_metric_is_documented():
    source = (ROOT / "extproc" / "stream" / "metrics.py").read_text()
    names = re.findall(r'"(dualpool_\w+)"', source)
    assert len(names) > 10
    for name in names:
        assert f"`{name}" in TEXT


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_a_link_leads_somewhere(page, link):
    assert (page.parent / link).exists()


def test_the_command_is_installed():
    assert shutil.which("dualpool", path=str(Path(sys.executable).parent))


def first_example():
    """The body of the first example, and the headers that its pages show."""
    command = next(text for kind, text in BLOCKS if "curl" in text)
    [shown] = {text for kind, text in BLOCKS if text.startswith("x-llm-pool")}
    headers = dict(line.split(": ") for line in shown.splitlines())
    return re.search(r"-d '(.*)'", command)[1].encode(), headers


def test_the_first_example_shows_what_is_decided_once_servers_have_counted():
    body, shown = first_example()
    with running(load={"discover": True}) as stack:
        wait_for(lambda: stack.model in fetch(f"{stack.gateway.service_url}/state").json["models"])
        answer = stack.post("/v1/chat/completions", json.loads(body))
    assert shown == {name: answer.headers[name] for name in shown}


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/compose.md"])
def test_the_first_example_says_what_is_decided_before(page):
    settings = load(ROOT / "envoy" / "dualpool.yaml")
    found = explain(first_example()[0], Endpoint.CHAT, settings)
    said = f"`x-llm-budget: {found.budget_tokens}` and `x-llm-basis: {found.basis}`"
    assert said in (ROOT / page).read_text()
