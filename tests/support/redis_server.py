"""A real Redis or Valkey on a free port of this machine."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest

_NAMES = ("valkey-server", "redis-server")
BINARY = os.environ.get("DUALPOOL_REDIS") or next(filter(None, map(shutil.which, _NAMES)), None)
needs_redis = pytest.mark.skipif(not BINARY, reason="no valkey-server, no redis-server")


class RedisServer:
    """One server, which may be killed and started again with what it had written."""

    def __init__(self, folder, *options: str) -> None:
        self.folder, self.options = folder, options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(BINARY, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self.folder), "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "always", *self.options),
            ],
            stdout=subprocess.DEVNULL,
        )
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("the server does not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def redis_server(folder, *options: str):
    """Run a server; every write is on the disk before it is answered."""
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
