"""The service behind the real Envoy with production settings; pools answer with their names."""

import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from extproc.config.load import load
from extproc.envoy.render import render_envoy
from extproc.local.children import StackError
from extproc.local.envoy import envoy_command, find_envoy
from extproc.local.ports import free_ports
from tests.support import local_stack as gateway

BODY = {"model": "m", "prompt": "Where do owls sleep at noon?", "max_tokens": 5}

# Envoy and up to two processes of the service must start.
wait_for = partial(gateway.wait_for, seconds=40)


@dataclass
class Fronted:
    """A running Envoy and service; `http` is the service's own URL, `admin` Envoy's."""

    url: str
    http: str
    admin: str
    service: subprocess.Popen
    log: Path  # of the service

    def pool(self):
        """Send a small request; return the pool that answered."""
        answer = gateway.fetch(f"{self.url}/v1/completions", BODY)
        assert answer.status == 200
        return answer.body.decode()

    def metrics(self):
        return gateway.fetch(f"{self.http}/metrics").body.decode()

    def stats(self, pattern):
        """Return Envoy's counters whose names match."""
        answer = gateway.fetch(f"{self.admin}/stats?format=json&filter={quote(pattern)}")
        return {each["name"]: each["value"] for each in answer.json["stats"] if "value" in each}

    def is_ready(self):
        return gateway.answers(f"{self.http}/readyz")

    def envoy_answers(self):
        try:
            return self.pool() != ""
        except OSError:
            return False


@contextmanager
def fronted(folder, listen=None, envoy=None, workers=1, answer=None, requests=None, tracing=None):
    """Run Envoy, the service and two pools; yield when Envoy and the service answer.

    `answer` is a function of a pool's name and a request's body; it returns the content type, the
    body and the status of the answer.
    """
    try:
        find_envoy()
    except StackError as error:
        pytest.skip(str(error))
    ports = free_ports()
    with ExitStack() as stack:
        addresses = [
            stack.enter_context(pool(name, answer or _answer_with_name))
            for name in ("short", "long")
        ]
        document = {
            "workers": workers,
            "listen": {
                "grpc": f"127.0.0.1:{ports.grpc}",
                "http": f"127.0.0.1:{ports.http}",
                "notice_s": 0,
                "drain_s": 0,
            }
            | (listen or {}),
            "pools": [
                {"name": "short", "max_model_len": 8192, "address": addresses[0]},
                {"name": "long", "max_model_len": 65536, "address": addresses[1]},
            ],
            "requests": requests or {},
            "tracing": tracing or {},
            "envoy": {
                "listen": f"127.0.0.1:{ports.listener}",
                "admin": f"127.0.0.1:{ports.admin}",
                # What reaches the short pool was decided by the service.
                "fail_open": "largest",
            }
            | (envoy or {}),
        }
        found = stack.enter_context(serving(folder, document, ports))
        wait_for(found.envoy_answers)
        yield found


@contextmanager
def serving(folder, document, ports):
    """Run Envoy and the service by settings that state these ports; yield when both are ready."""
    file = folder / "dualpool.yaml"
    file.write_text(yaml.safe_dump(document))
    with ExitStack() as stack:
        command = (sys.executable, "-m", "extproc", "serve", "--config", str(file))
        log = folder / "service.log"
        service = stack.enter_context(started(command, log))
        stack.enter_context(started(envoy_command(render_envoy(load(file))).argv))
        found = Fronted(
            url=f"http://127.0.0.1:{ports.listener}",
            http=f"http://127.0.0.1:{ports.http}",
            admin=f"http://127.0.0.1:{ports.admin}",
            service=service,
            log=log,
        )
        wait_for(found.is_ready)
        yield found


@contextmanager
def started(command, log=None):
    """Run a command; what it writes to stderr is shown at the end, if it goes to a log."""
    with ExitStack() as stack:
        errors = stack.enter_context(log.open("w")) if log else None
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        )
        try:
            yield process
        finally:
            process.kill()
            if log:
                print(log.read_text(), file=sys.stderr)


@contextmanager
def pool(name, answer):
    """Run a server; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            self._send(*answer(name, body))

        def do_GET(self):  # the health check
            self._send("text/plain", b"", 200)

        def _send(self, kind, body, status):
            self.send_response(status)
            self.send_header("content-type", kind)
            if kind == "text/event-stream":  # never of a stated length
                self.send_header("transfer-encoding", "chunked")
                body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            else:
                self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        # With the default of 5 a burst of connections times out, and Envoy tries the other pool.
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _answer_with_name(name, _body):
    return "text/plain", name.encode(), 200


def children(pid):
    """Return the ids of the children of a process."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
