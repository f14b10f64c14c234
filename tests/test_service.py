"""The whole service in one process and in several, over its real ports."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from functools import partial

import gateway
import grpc
import pytest
from conversation import FILES, read
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.server import SERVICE

# A process, or two, must start.
wait_for = partial(gateway.wait_for, seconds=30)


def free_ports(count):
    """Return the first of `count` consecutive ports that are free, and one more."""
    for _ in range(50):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        sockets = [socket.socket() for _ in range(count + 1)]
        try:
            for i, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + i))
        except (OSError, OverflowError):
            continue
        finally:
            for each in sockets:
                each.close()
        return first, first + count
    raise AssertionError("no free ports")


@contextmanager
def running(tmp_path, workers=1, drain_s=5):
    """Run `dualpool serve`; yield the process, its gRPC port and its HTTP address."""
    port, http = free_ports(workers)
    file = tmp_path / "dualpool.yaml"
    file.write_text(
        f"listen: {{grpc: '127.0.0.1:{port}', http: '127.0.0.1:{http}', drain_s: {drain_s}}}\n"
        f"workers: {workers}\n"
    )
    command = [sys.executable, "-m", "extproc", "serve", "--config", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = f"http://127.0.0.1:{http}"
            wait_for(lambda: get(f"{url}/readyz")[0] == 200)
            yield process, port, url
        finally:
            process.kill()


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def converse(port, name):
    """Play a conversation against a gRPC port; return the number of replies."""

    async def main():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(
                f"/{SERVICE}/Process",
                request_serializer=ProcessingRequest.SerializeToString,
                response_deserializer=ProcessingResponse.FromString,
            )()
            [path] = [file for file in FILES if file.stem == name]
            for turn in read(path):
                await call.write(turn.message)
            return len([reply async for reply in call])

    return asyncio.run(asyncio.wait_for(main(), 20))


def samples(url):
    return json.loads(get(f"{url}/state")[1])["categories"].get("prose/m", {}).get("samples", 0)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    with running(tmp_path_factory.mktemp("one")) as service:
        yield service


def test_what_is_learnt_is_told_in_the_state(one):
    _, port, url = one
    before = samples(url)
    converse(port, "observed")
    wait_for(lambda: samples(url) == before + 1)


def test_decisions_are_counted_in_the_metrics(one):
    _, port, url = one
    assert converse(port, "buffered-short") == 2
    wait_for(lambda: 'dualpool_decisions_total{basis="' in get(f"{url}/metrics")[1])


def test_the_process_says_that_it_lives(one):
    assert get(f"{one[2]}/healthz") == (200, "ok\n")


def test_sigterm_drains_and_ends_with_zero(tmp_path):
    with running(tmp_path) as (process, _, url):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert get(f"{url}/healthz")[0] == 0


def test_a_drain_refuses_readiness_and_is_bounded(tmp_path):
    with (
        running(tmp_path, drain_s=1) as (process, port, url),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(watch)  # a stream that does not end by itself
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: get(f"{url}/readyz")[0] in (503, 0))
        assert process.wait(10) == 0


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    with running(tmp_path_factory.mktemp("two"), workers=2) as service:
        yield service


def test_what_one_worker_learns_all_know(two):
    _, port, url = two
    before = samples(url)
    converse(port, "observed")
    converse(port + 1, "observed")
    wait_for(lambda: samples(url) == before + 2)


def test_metrics_of_workers_are_added_up(two):
    _, port, url = two
    converse(port, "get")
    converse(port + 1, "get")
    wait_for(lambda: "dualpool_unread_requests_total 2.0" in get(f"{url}/metrics")[1])


def test_a_worker_that_dies_is_replaced(two):
    process, _, url = two
    [victim, *_] = children(process.pid)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: get(f"{url}/readyz")[0] == 503)
    wait_for(lambda: get(f"{url}/readyz")[0] == 200)


def test_workers_end_with_their_supervisor(tmp_path):
    with running(tmp_path, workers=2) as (process, _, _):
        workers = children(process.pid)
        assert len(workers) == 2
        process.kill()
        wait_for(lambda: not any(alive(pid) for pid in workers))


def test_sigterm_ends_all_workers(tmp_path):
    with running(tmp_path, workers=2) as (process, _, _):
        workers = children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert not any(alive(pid) for pid in workers)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_address_that_is_taken_is_one_clear_message(tmp_path):
    with running(tmp_path) as (_, port, _):
        file = tmp_path / "second.yaml"
        file.write_text(f"listen: {{grpc: '127.0.0.1:{port}', http: '127.0.0.1:0'}}\n")
        command = [sys.executable, "-m", "extproc", "serve", "--config", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 1
        assert f"dualpool: cannot listen on 127.0.0.1:{port} for gRPC" in done.stderr
        assert "Traceback" not in done.stderr
