"""Settings change under traffic through the real Envoy: no request is lost, nothing leaks."""

import http.client
import json
import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.production_stack import BODY, children, fronted, wait_for

CLIENTS = 4
MOST_MIB = 8


class Traffic:
    """Clients that send small requests one after the other; counts the pools that answered."""

    def __init__(self, url):
        self.answers = Counter()
        self._netloc = urlsplit(url).netloc
        self._ended = threading.Event()

    def run(self):
        with closing(http.client.HTTPConnection(self._netloc, timeout=30)) as client:
            while not self._ended.is_set():
                client.request("POST", "/v1/completions", json.dumps(BODY))
                answer = client.getresponse()
                self.answers[answer.status, answer.read()] += 1

    @contextmanager
    def flowing(self):
        with ThreadPoolExecutor(CLIENTS) as clients:
            running = [clients.submit(self.run) for _ in range(CLIENTS)]
            try:
                yield
            finally:
                self._ended.set()
            for each in running:
                each.result()


class Settings:
    """The file of a running service, replaced as a ConfigMap's is: by another link."""

    def __init__(self, file):
        self._file, self._number = file, 0
        self._document = yaml.safe_load(file.read_text())

    def write(self, text):
        self._number += 1
        version = self._file.with_name(f"version-{self._number % 2}.yaml")
        version.write_text(text)
        link = self._file.with_name("link")
        link.symlink_to(version.name)
        link.replace(self._file)

    def write_good(self, number):
        short, long = self._document["pools"]
        changed = {
            "pools": [short | {"threshold": 8192 - number % 1000}, long],
            "budget": {"target": 0.001 + number % 10 / 1000},
            "models": [{"name": f"m-{number % 7}", "image_tokens": number % 5}],
        }
        self.write(yaml.safe_dump(self._document | changed))

    def write_bad(self, number):
        bad = ["pools: [", "pools: []", "budget: {target: 2}", "\0", "workers: 0"]
        self.write(bad[number % len(bad)])


def reloads(stack, outcome):
    name = f'dualpool_reloads_total{{outcome="{outcome}"}} '
    [value] = [
        line.removeprefix(name) for line in stack.metrics().splitlines() if line.startswith(name)
    ]
    return int(float(value))


def used_mib(pid):
    """Return the memory of a process and its children."""
    pages = 0
    for each in (pid, *children(pid)):
        with open(f"/proc/{each}/statm") as file:
            pages += int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def reload(stack, settings, first, count):
    """Reload so many good and as many bad files."""
    for number in range(first, first + count):
        for outcome, write in (("applied", settings.write_good), ("refused", settings.write_bad)):
            before = reloads(stack, outcome)
            write(number)
            stack.service.send_signal(signal.SIGHUP)
            wait_for(lambda outcome=outcome, before=before: reloads(stack, outcome) > before)


@pytest.mark.parametrize(
    ("workers", "count"), [(1, 10), (2, 5), pytest.param(1, 100, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(900)
def test_reloads_under_traffic_lose_no_request_and_leak_nothing(tmp_path, workers, count):
    with fronted(tmp_path, {"notice_s": 0}, workers=workers) as stack:
        settings, traffic = Settings(tmp_path / "dualpool.yaml"), Traffic(stack.url)
        wait_for(lambda: stack.pool() == "short")
        with traffic.flowing():
            reload(stack, settings, 0, count // 5)
            before = used_mib(stack.service.pid)
            reload(stack, settings, count // 5, count - count // 5)
            assert used_mib(stack.service.pid) < before + MOST_MIB
        print(f"{2 * count} reloads, {traffic.answers.total()} requests")
        assert set(traffic.answers) == {(200, b"short")}


def test_a_file_that_is_replaced_is_loaded_without_a_signal(tmp_path):
    with fronted(tmp_path) as stack:
        wait_for(lambda: stack.pool() == "short")
        file = tmp_path / "dualpool.yaml"
        document = yaml.safe_load(file.read_text())
        document["pools"][0]["threshold"] = 1
        Settings(file).write(yaml.safe_dump(document))
        wait_for(lambda: stack.pool() == "long")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_learnt_survives(tmp_path, workers):
    usage = {"usage": {"prompt_tokens": 9, "completion_tokens": 5}}

    def answer(_name, _body):
        return "application/json", json.dumps(usage).encode(), 200

    with fronted(tmp_path, workers=workers, answer=answer) as stack:
        wait_for(lambda: stack.pool() != "" and "dualpool_category_samples" in stack.metrics())
        settings = Settings(tmp_path / "dualpool.yaml")
        reload(stack, settings, 1, 1)
        assert 'dualpool_category_samples{category="prose/m"}' in stack.metrics()
        assert 'dualpool_limit_target{limit="8192"} 0.002' in stack.metrics()
