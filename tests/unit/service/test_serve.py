"""The whole service in one process and in several, over its real ports."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from extproc.build import build_learner
from extproc.config.settings import Settings
from extproc.service import serve
from extproc.service.reload import Source
from extproc.simulator.pool.answer import describe_models
from tests.support.counts import count
from tests.support.http_server import Answering, serving_http
from tests.support.production_stack import BODY, children, fronted
from tests.support.running_service import (
    consecutive_ports,
    converse,
    get,
    listens,
    samples,
    serving,
    wait_for,
)
from tests.support.transports import SERVED
from tests.unit.routing.load.test_report import VLLM

EVERYWHERE = "0.0.0.0"  # as one of several replicas

both = pytest.mark.parametrize("workers", [1, 2], ids=["one process", "workers"])


def test_the_series_of_a_category_that_is_replaced_are_removed(monkeypatch):
    learner, registry = build_learner(Settings()), CollectorRegistry()
    monkeypatch.setattr(serve, "build_learner", lambda _settings: learner)
    monkeypatch.setattr(serve, "CollectorRegistry", lambda: registry)

    async def built():
        serve.Service(Settings(), Source(None, Settings))

    asyncio.run(built())
    error = "dualpool_budget_relative_error_count", {"category": "a/m"}
    learner.on_replaced.__self__.budget_error.labels("a/m").observe(0)
    assert registry.get_sample_value(*error) == 1
    learner.on_replaced("a/m")
    assert registry.get_sample_value(*error) is None


@pytest.fixture(scope="module", params=SERVED)
def one(request, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("one"), transport=request.param) as service:
        yield service


def test_what_is_learnt_is_told_in_the_state(one):
    _, port, url = one
    before = samples(url)
    converse(port, "observed")
    wait_for(lambda: samples(url) == before + 1)


def test_one_process_is_its_own_only_worker(one):
    metrics = get(f"{one[2]}/metrics")[1]
    assert "\ndualpool_workers 1.0\n" in metrics
    assert "\ndualpool_workers_ready 1.0\n" in metrics


def test_decisions_are_counted_in_the_metrics(one):
    _, port, url = one
    assert converse(port, "buffered-short") == 2
    wait_for(lambda: 'dualpool_decisions_total{basis="' in get(f"{url}/metrics")[1])


def test_the_process_says_that_it_lives(one):
    assert get(f"{one[2]}/healthz") == (200, "ok\n")


@pytest.mark.parametrize("transport", SERVED)
def test_sigterm_drains_and_ends_with_zero(tmp_path, transport):
    with serving(tmp_path, transport=transport) as (process, _, url):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert get(f"{url}/healthz")[0] == 0


@contextmanager
def held_open(port):
    """Hold a stream open that does not end by itself; yield the statuses that it tells."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())


@both
def test_a_drain_is_bounded(tmp_path, workers):
    with (
        serving(tmp_path, workers, host=EVERYWHERE, drain_s=1) as (process, port, _),
        held_open(port) as told,
    ):
        next(told)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@both
def test_who_leaves_says_so_and_serves_on(tmp_path, workers):
    with (
        serving(tmp_path, workers, host=EVERYWHERE, notice_s=60) as (process, port, url),
        held_open(port) as told,
    ):
        assert next(told).status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert next(told).status == health_pb2.HealthCheckResponse.NOT_SERVING
        wait_for(lambda: get(f"{url}/readyz")[0] == 503)
        assert converse(port, "buffered-short") == 2


@both
def test_after_the_notice_new_streams_are_refused(tmp_path, workers):
    with (
        serving(tmp_path, workers, host=EVERYWHERE, notice_s=1, drain_s=60) as (process, port, _),
        held_open(port) as told,
    ):
        next(told)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(port))
        assert process.poll() is None


@both
def test_http_answers_while_streams_end(tmp_path, workers):
    with (
        serving(tmp_path, workers, host=EVERYWHERE, drain_s=60) as (process, port, url),
        held_open(port) as told,
    ):
        next(told)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(port))
        assert [get(f"{url}/{page}")[0] for page in ("metrics", "state", "readyz")] == [
            200,
            200,
            503,
        ]


@both
def test_a_second_signal_ends_the_notice_at_once(tmp_path, workers):
    with serving(tmp_path, workers, host=EVERYWHERE, notice_s=60) as (process, _, url):
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: get(f"{url}/readyz")[0] == 503)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@both
def test_a_second_signal_ends_the_drain_at_once(tmp_path, workers):
    with (
        serving(tmp_path, workers, host=EVERYWHERE, drain_s=60) as (process, port, _),
        held_open(port) as told,
    ):
        next(told)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(port))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("two"), workers=2) as service:
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


def test_a_worker_that_dies_is_replaced_while_the_other_keeps_the_service_ready(two):
    process, port, url = two
    [victim, *_] = children(process.pid)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: ready_workers(url) == 1)
    assert get(f"{url}/readyz")[0] == 200
    wait_for(lambda: ready_workers(url) == 2)
    assert [converse(port + index, "buffered-short") for index in (0, 1)] == [2, 2]


def ready_workers(url):
    metrics = dict(line.rsplit(" ", 1) for line in get(f"{url}/metrics")[1].splitlines())
    assert metrics["dualpool_workers"] == "2.0"
    return float(metrics["dualpool_workers_ready"])


def test_a_worker_may_print_whatever_it_likes(tmp_path):
    # Python runs sitecustomize at the start of every process.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'extproc.service.worker' in sys.orig_argv:\n"
        "    sys.stdout.buffer.write(b'x' * 200_000 + b'\\n\\xff\\n\\n')\n"
        "    sys.stdout.flush()\n"
    )
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    with serving(tmp_path, workers=2, PYTHONPATH=path) as (process, port, url):
        converse(port, "observed")
        wait_for(lambda: samples(url) == 1)
        assert process.poll() is None


def test_workers_end_with_their_supervisor(tmp_path):
    with serving(tmp_path, workers=2) as (process, _, _):
        workers = children(process.pid)
        assert len(workers) == 2
        process.kill()
        wait_for(lambda: not any(alive(pid) for pid in workers))


def test_sigterm_ends_all_workers(tmp_path):
    with serving(tmp_path, workers=2) as (process, _, _):
        workers = children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not any(alive(pid) for pid in workers)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_address_that_is_taken_is_one_clear_message(tmp_path):
    with serving(tmp_path) as (_, port, _):
        file = tmp_path / "second.yaml"
        file.write_text(f"listen: {{grpc: '127.0.0.1:{port}', http: '127.0.0.1:0'}}\n")
        command = [sys.executable, "-m", "extproc", "serve", "--config", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 1
        assert f"dualpool: cannot listen on 127.0.0.1:{port} for gRPC" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_http_address_that_is_taken_leaves_no_socket_behind(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        http = f"127.0.0.1:{taken.getsockname()[1]}"
        file = tmp_path / "dualpool.yaml"
        file.write_text(f"listen: {{grpc: 'unix:{tmp_path}/s', http: '{http}'}}\n")
        command = [sys.executable, "-m", "extproc", "serve", "--config", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 1
        reason = f"cannot listen on {http} for HTTP: Address already in use; stop what listens"
        assert done.stderr.startswith(f"dualpool: {reason}")
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "s").exists()


def test_a_worker_that_cannot_listen_ends_the_service_with_its_message(tmp_path):
    first, port = consecutive_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        file = tmp_path / "dualpool.yaml"
        file.write_text(f"listen: {{grpc: '127.0.0.1:{first}', http: '127.0.0.1:0'}}\nworkers: 2\n")
        command = [sys.executable, "-m", "extproc", "serve", "--config", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1
        assert f"dualpool: cannot listen on 127.0.0.1:{port} for gRPC" in done.stderr
        assert "dualpool: worker 1 could not start; its own message is above" in done.stderr
        assert "Traceback" not in done.stderr


def test_no_folder_for_metrics_is_one_clear_message(tmp_path):
    port, http = consecutive_ports(2)
    file = tmp_path / "dualpool.yaml"
    file.write_text(f"listen: {{grpc: '127.0.0.1:{port}', http: '127.0.0.1:{http}'}}\nworkers: 2\n")
    code = (
        "import sys, tempfile; tempfile._candidate_tempdir_list = lambda: ['/none']; "
        "from extproc.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "serve", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "dualpool: no folder for the workers' metrics: No usable temporary" in done.stderr
    assert "set TMPDIR to a folder" in done.stderr


def test_envoy_sees_a_service_leave_before_it_does(tmp_path):
    listen = {"grpc": f"{EVERYWHERE}:{consecutive_ports(1)[0]}", "notice_s": 60}
    with fronted(tmp_path, listen) as stack:
        wait_for(lambda: stack.pool() == "short")
        stack.service.send_signal(signal.SIGTERM)
        wait_for(lambda: stack.pool() == "long")
        assert stack.service.poll() is None


def test_a_service_without_replicas_decides_until_it_ends(tmp_path):
    body = json.dumps(BODY)
    with (
        fronted(tmp_path, {"notice_s": 60}) as stack,
        closing(http.client.HTTPConnection(urlsplit(stack.url).netloc, timeout=20)) as slow,
    ):
        wait_for(lambda: stack.pool() == "short")
        wait_for(lambda: "dualpool_streams_open 0" in stack.metrics())
        slow.putrequest("POST", "/v1/completions")
        slow.putheader("content-length", str(len(body)))
        slow.endheaders(body[:9].encode())
        wait_for(lambda: "dualpool_streams_open 1" in stack.metrics())
        stack.service.send_signal(signal.SIGTERM)
        wait_for(lambda: not stack.is_ready())
        assert {stack.pool() for _ in range(20)} == {"short"}
        slow.send(body[9:].encode())
        assert slow.getresponse().read() == b"short"
        assert stack.service.wait(60) == 0


@both
def test_a_service_without_replicas_ends_at_once_if_nothing_is_due(tmp_path, workers):
    with serving(tmp_path, workers, notice_s=60, drain_s=60) as (process, _, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_workers_serve_on_framing_of_their_own(tmp_path):
    with serving(tmp_path, workers=2, transport="h2") as (process, port, url):
        before = samples(url)
        converse(port + 1, "observed")
        wait_for(lambda: samples(url) == before + 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


class SaturatedOrIdle(Answering):
    """A server's metrics: under /metrics of one port with a queue, of the other without."""

    def found(self):
        waiting = b"90.0" if self.server.saturated else b"0.0"
        return 200, VLLM.replace(b" 7.0", b" " + waiting)


@both
def test_requests_leave_a_pool_whose_servers_report_a_queue(tmp_path, workers):
    with (
        serving_http(SaturatedOrIdle, saturated=True) as short,
        serving_http(SaturatedOrIdle, saturated=False) as long,
    ):
        more = (
            "load: {spill: true, every_ms: 50, timeout_ms: 5000}\n"
            f"pools: [{{name: short, max_model_len: 8192, address: '{short}'}}, "
            f"{{name: long, max_model_len: 65536, address: '{long}'}}]\n"
        )
        with serving(tmp_path, workers, more=more) as (_, port, url):

            def load(pool):
                return json.loads(get(f"{url}/state")[1])["load"][pool]

            wait_for(lambda: load("short").get("room") and load("long")["state"] == "known")
            assert load("short")["waiting"] == 90

            def spilled():
                converse(port, "buffered-short")
                lines = get(f"{url}/metrics")[1].splitlines()
                return [
                    line for line in lines if 'reason="spill"' in line and 'pool="long"' in line
                ]

            wait_for(spilled)
            text = get(f"{url}/metrics")[1]
            assert 'dualpool_pool_requests{pool="short",state="waiting"} 90.0' in text
            assert 'dualpool_pool_servers{pool="long",state="reporting"} 1.0' in text


class Lists(Answering):
    """A server of a model with a window of 1 token."""

    def found(self):
        status = 200 if self.path == "/v1/models" else 404
        return status, describe_models("m", 1, 0, "x")


@both
def test_a_window_that_a_server_states_counts_and_what_was_learnt_stays(tmp_path, workers):
    with serving_http(Lists) as server:
        pools = (
            f"pools: [{{name: short, max_model_len: 8192, address: '{server}'}}, "
            "{name: long, max_model_len: 65536, address: '127.0.0.1:9'}]\n"
        )
        more = f"{pools}load: {{discover: false}}\n"
        with serving(tmp_path, workers, more=more) as (process, port, url):
            converse(port, "observed")
            wait_for(lambda: samples(url) == 1)
            file = tmp_path / "dualpool.yaml"
            file.write_text(file.read_text().replace("discover: false", "discover: true"))
            process.send_signal(signal.SIGHUP)

            def state():
                return json.loads(get(f"{url}/state")[1])

            wait_for(lambda: state().get("discovered", {}).get("short", {}).get("used") == 1)
            assert state()["discovered"]["short"]["models"] == ["m"]
            assert state()["pools"] == {"short": 8192, "long": 65536}
            wait_for(lambda: "1" in state()["limits"])
            assert samples(url) == 1

            def decided():
                converse(port, "buffered-short")
                lines = get(f"{url}/metrics")[1].splitlines()
                return [line for line in lines if 'reason="capacity"' in line]

            wait_for(decided)
            text = get(f"{url}/metrics")[1]
            assert 'dualpool_pool_window_tokens{pool="short",source="used"} 1.0' in text
            assert 'dualpool_pool_disagreements{kind="window",pool="short"} 1.0' in text


class Counts(Lists):
    """A server of the same model that counts as a tokenizer may."""

    def found(self):
        if self.path != "/tokenize":
            return 200, describe_models("m", 65536, 0, "x")
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert body.pop("model") == "m"
        return 200, json.dumps({"count": count(body)}).encode()


@both
def test_a_model_that_is_discovered_is_counted_before_its_first_answer(tmp_path, workers):
    with serving_http(Counts) as server:
        pools = (
            "pools: [{name: short, max_model_len: 8192, address: '127.0.0.1:9'}, "
            f"{{name: long, max_model_len: 65536, address: '{server}'}}]\n"
        )
        more = f"{pools}load: {{discover: true}}\nstate: 'file:{tmp_path}/state'\n"
        with serving(tmp_path, workers, more=more) as (process, _, url):

            def models():
                return json.loads(get(f"{url}/state")[1])["models"]

            wait_for(models)
            assert models()["m"]["samples"] == 0
            assert samples(url) == 0
            process.terminate()
            assert process.wait(60) == 0
        with serving(tmp_path, workers, more=more) as (_, _, url):
            assert models()["m"]["samples"] == 0
            time.sleep(2)
            assert 'question="tokenize"' not in get(f"{url}/metrics")[1]


@both
def test_what_was_learnt_outlives_a_restart(tmp_path, workers):
    more = f"state: 'file:{tmp_path}/state'\n"
    with serving(tmp_path, workers, more=more) as (process, port, url):
        converse(port, "observed")
        wait_for(lambda: samples(url) == 1)
        process.terminate()
        assert process.wait(60) == 0
    with serving(tmp_path, workers, more=more) as (_, _, url):
        assert samples(url) == 1
