"""`dualpool serve` as one of several replicas that share what they learn."""

import json
import time

import pytest

from tests.support.redis_server import needs_redis, redis_server
from tests.support.running_service import converse, get, samples, serving, wait_for

pytestmark = [needs_redis, pytest.mark.slow]


@pytest.fixture
def server(tmp_path):
    with redis_server(tmp_path) as server:
        yield server


def replica(tmp_path, server, name, workers=1):
    folder = tmp_path / name
    folder.mkdir()
    more = f"state: redis://127.0.0.1:{server.port}\n"
    return serving(folder, more=more, workers=workers, transport="grpc")


def state(url):
    return json.loads(get(f"{url}/state")[1])["state"]


def test_what_one_learns_all_know_also_the_workers_of_one(tmp_path, server):
    with (
        replica(tmp_path, server, "a") as (_, port, first),
        replica(tmp_path, server, "b", workers=2) as (_, other, second),
    ):
        wait_for(lambda: state(first)["connected"] and state(second)["connected"])
        converse(port, "observed")
        converse(other, "observed")
        converse(other + 1, "observed")
        wait_for(lambda: samples(first) == samples(second) == 3)
        wait_for(lambda: state(first)["replicas"] == state(second)["replicas"] == 2)
        wait_for(lambda: state(first)["agree"] and state(second)["agree"])


def test_a_service_that_drains_leaves_what_it_observed(tmp_path, server):
    with replica(tmp_path, server, "a") as (process, port, url):
        wait_for(lambda: state(url)["connected"])
        converse(port, "observed")
        process.terminate()
        assert process.wait(60) == 0
    with replica(tmp_path, server, "b") as (_, _, url):
        assert samples(url) == 1  # ready with what the other has learnt


def test_replicas_whose_windows_change_at_different_moments_hold_the_same_again(tmp_path, server):
    with (
        replica(tmp_path, server, "a") as (_, port, first),
        replica(tmp_path, server, "b", workers=2) as (_, other, second),
    ):
        wait_for(lambda: state(first)["connected"] and state(second)["connected"])
        for name, url in {"a": first, "b": second}.items():
            before = state(first)["checkpoint"]
            with (tmp_path / name / "dualpool.yaml").open("a") as file:
                file.write(POOLS)
            wait_for(lambda url=url: "4096" in json.loads(get(f"{url}/state")[1])["limits"])
            converse(port, "observed")
            converse(other, "observed")
            wait_for(lambda before=before: state(first)["checkpoint"] != before)
        wait_for(lambda: samples(first) == 4 and learnt(first) == learnt(second))


def learnt(url):
    document = json.loads(get(f"{url}/state")[1])
    return [document[key] for key in ("categories", "models", "limits")]


POOLS = """
pools:
  - {name: short, max_model_len: 4096}
  - {name: long, max_model_len: 65536}
"""


def test_a_store_that_is_absent_costs_no_decision(tmp_path, server):
    server.kill()
    with replica(tmp_path, server, "a") as (_, port, url):
        assert converse(port, "buffered-short") == 2
        converse(port, "observed")
        assert not state(url)["connected"]
        server.start()
        wait_for(lambda: samples(url) == 1)


def test_decisions_go_on_while_the_store_is_killed_for_ten_seconds(tmp_path, server):
    with replica(tmp_path, server, "a") as (_, port, url):
        wait_for(lambda: state(url)["connected"])
        times = []
        for second in range(14):
            if second == 2:
                server.kill()
            if second == 12:
                server.start()
            until = time.monotonic() + 1
            while time.monotonic() < until:
                began = time.perf_counter()
                assert converse(port, "buffered-short") == 2
                times.append((2 <= second < 12, time.perf_counter() - began))
        without = sorted(took for away, took in times if away)
        beside = sorted(took for away, took in times if not away)
        print(f"P99 of a conversation: {p99(beside):.4f} s, without the store {p99(without):.4f} s")
        wait_for(lambda: state(url)["connected"])


def p99(times):
    return times[int(len(times) * 0.99)]
