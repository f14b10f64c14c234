"""A real Prometheus that watches a stack on this machine, by the repository's own configuration.

Only what one machine needs is changed: addresses in place of names, seconds in place of minutes.
`python -m tests.support.prometheus_server FILE` draws what the dashboard shows of `dualpool demo`.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from contextlib import contextmanager
from pathlib import Path

import yaml

from deploy.grafana.picture import draw
from extproc.local.ports import Ports, free_ports
from tests.support.local_stack import answers, fetch, wait_for
from tests.support.paths import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
# Rates of a run that takes a minute.
SHORTER = {"[5m]": "[30s]"}


def local_scrapes(ports):
    """The jobs of prometheus.yml, with the addresses of a local stack."""
    document = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    short, long = ports.pools
    targets = {
        "dualpool": [{"targets": [f"127.0.0.1:{ports.http}"]}],
        "envoy": [{"targets": [f"127.0.0.1:{ports.admin}"]}],
        "pool": [
            {"targets": [f"127.0.0.1:{short}"], "labels": {"pool": "short"}},
            {"targets": [f"127.0.0.1:{long}"], "labels": {"pool": "long"}},
        ],
    }
    for job in document["scrape_configs"]:
        del job["dns_sd_configs"]
        job.pop("relabel_configs", None)
        job["static_configs"] = targets.pop(job["job_name"])
        if job["job_name"] == "envoy":  # the admin's own path: the local Envoy has no 9902
            job["metrics_path"] = "/stats/prometheus"
    assert not targets
    document["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    return document


def _write_configuration(folder, ports):
    (folder / "prometheus.yml").write_text(yaml.safe_dump(local_scrapes(ports)), encoding="utf-8")
    shutil.copy(PROMETHEUS / "alerts.yml", folder)
    rules = (PROMETHEUS / "rules.yml").read_text(encoding="utf-8")
    for ours, here in SHORTER.items():
        assert ours in rules
        rules = rules.replace(ours, here)
    (folder / "rules.yml").write_text(rules, encoding="utf-8")


@contextmanager
def watching(ports):
    """Run Prometheus over a stack's ports; yield its URL."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_configuration(folder, ports)
        address = f"127.0.0.1:{free_ports().http}"
        command = [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ]
        process = subprocess.Popen(command)
        try:
            wait_for(lambda: _is_ready(f"http://{address}", process))
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(60)


def _is_ready(url, process):
    assert process.poll() is None, "Prometheus has ended"
    return answers(f"{url}/-/ready")


def ask(url, expr):
    """The series that an expression gives now, as (labels, value)."""
    answer = fetch(f"{url}/api/v1/query?" + urllib.parse.urlencode({"query": expr}))
    body = json.loads(answer.body)
    assert body["status"] == "success", body
    return [(each["metric"], float(each["value"][1])) for each in body["data"]["result"]]


def draw_demo(path, requests=800):
    """Run `dualpool demo` under Prometheus and draw the dashboard's panels of its time."""
    demo = [sys.executable, "-m", "extproc", "demo", "--requests", str(requests)]
    with watching(Ports()) as url:
        started = time.monotonic()
        process = subprocess.Popen(demo)
        while process.poll() is None:
            time.sleep(1)
            if ask(url, f"sum(dualpool_decisions_total) >= {requests}"):
                break
        draw(url, path, (time.monotonic() - started) / 60)
        assert process.wait() == 0


if __name__ == "__main__":
    draw_demo(sys.argv[1])
