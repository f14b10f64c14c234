"""A real Redis or Valkey on a free port of this machine."""

import os
import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest

from extproc.local.ports import free_ports

_NAMES = ("valkey-server", "redis-server")
BINARY = os.environ.get("DUALPOOL_REDIS") or next(filter(None, map(shutil.which, _NAMES)), None)
needs_redis = pytest.mark.skipif(not BINARY, reason="no valkey-server, no redis-server")


class RedisServer:
    """One server, which may be killed and started again with what it had written."""

    def __init__(self, folder, *options: str) -> None:
        self.folder, self.options = folder, options
        self.port = free_ports().http
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
def sentinel_of(folder, server):
    """Run a Sentinel that calls the server `llm`; yield its port."""
    port = free_ports().http
    file = folder / "sentinel.conf"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor llm 127.0.0.1 {server.port} 1\n"
        "sentinel down-after-milliseconds llm 500\nsentinel failover-timeout llm 2000\n"
    )
    command = [BINARY, file, "--sentinel"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.kill()


def has_tls() -> bool:
    """Return whether the server was built with TLS."""
    command = [BINARY, "--port", "0", "--tls-port", "1"]  # ends for want of a certificate
    said = subprocess.run(command, capture_output=True, timeout=10, check=False)
    return not re.search(b"Bad directive|Missing implement", said.stdout + said.stderr)


@contextmanager
def redis_server(folder, *options: str, authority=None):
    """Run a server; every write is on the disk before it is answered. With an authority: by TLS."""
    server = RedisServer(folder, *options)
    if authority:
        issued = authority.issue("store")
        server.options += (
            *("--port", "0", "--tls-port", str(server.port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(issued.cert), "--tls-key-file", str(issued.key)),
            *("--tls-ca-cert-file", str(authority.file)),
        )
    server.start()
    try:
        yield server
    finally:
        server.kill()
