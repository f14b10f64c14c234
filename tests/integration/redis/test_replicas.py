"""Replicas that share what they learn, at a real Redis or Valkey."""

import asyncio
import re
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from extproc.service import shared_state
from extproc.service.journal import Journal
from extproc.service.redis_store import RedisStore
from extproc.service.shared_state import SharedState, StoreAddress, StoreError
from extproc.state import log
from extproc.state.snapshot import fingerprint, take
from extproc.stream.metrics import SharedMetrics
from tests.support.answers import LIMITS, SIZES, small_learner, sound_answers
from tests.support.certificate_authority import Authority
from tests.support.paths import ROOT
from tests.support.redis_server import has_tls, needs_redis, redis_server, sentinel_of
from tests.support.waiting import until

pytestmark = needs_redis
OPERATE = ROOT / "docs/operate.md"
MARK = fingerprint("calibrated")
SEEN = list(sound_answers(3, 2000))


@pytest.fixture(autouse=True)
def _without_patience(monkeypatch):
    monkeypatch.setattr(log, "FRESH_S", 0.2)


@pytest.fixture
def server(tmp_path):
    with redis_server(tmp_path) as server:
        yield server


def store_at(server, **more):
    address = StoreAddress("127.0.0.1", server.port, **more)
    return RedisStore(address, lambda: MARK)


class Replica:
    def __init__(self, server, **more) -> None:
        self.learner, self.order, registry = small_learner(), [], CollectorRegistry()
        self.journal = Journal(self.learner, lambda: None, self.order.append)
        self.metrics = SharedMetrics(registry)
        self.limits = LIMITS
        self.state = SharedState(
            store_at(server, **more), self.journal, lambda: MARK, self.build, self.metrics
        )

    def build(self):
        return small_learner(limits=self.limits)

    def use_windows(self, *limits):
        self.limits = limits
        estimator = self.learner.estimator
        self.journal.run(lambda: estimator.retune(limits, **SIZES))
        self.state.retuned()

    def start(self):
        self.task = asyncio.create_task(self.state.run())

    async def leave(self):
        await self.state.leave(self.task)

    @property
    def held(self):
        return take(self.learner).digest, self.state.log.marks

    @property
    def is_idle(self):
        return self.state.log.position is not None and not self.state.log.pending


@asynccontextmanager
async def running(server, number=3, **more):
    replicas = [Replica(server, **more) for _ in range(number)]
    for replica in replicas:
        replica.start()
    try:
        await until(lambda: all(replica.state.log.position for replica in replicas))
        yield replicas
    finally:
        for replica in replicas:
            await replica.leave()


def agree(replicas):
    return all(r.is_idle for r in replicas) and len({r.held for r in replicas}) == 1


async def observe(replicas, number, every=10):
    for begin in range(0, number, every):
        for each in range(begin, begin + every):
            replicas[each % len(replicas)].state.observe(SEEN[each % len(SEEN)])
        await asyncio.sleep(0)


async def end_equal(server, number):
    async with running(server) as replicas:
        await observe(replicas, number)
        await until(lambda: agree(replicas), 400)
        assert [len(replica.order) for replica in replicas] == [number] * 3
        alone = small_learner()
        for seen in replicas[0].order:
            alone.learn(seen)
        assert take(alone).digest == replicas[1].held[0]


def test_replicas_end_byte_equal_with_one_that_saw_the_same_log(server):
    asyncio.run(end_equal(server, 1500))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thirty_thousand_observations_end_byte_equal(server):
    asyncio.run(end_equal(server, 30_000))


def test_a_new_replica_continues_from_the_snapshot(server):
    async def main():
        async with running(server) as replicas:
            await observe(replicas, 300)
            await until(lambda: agree(replicas))
            async with running(server, 1) as [newcomer]:
                await until(lambda: newcomer.held == replicas[0].held)
                await until(lambda: replicas[0].state.describe()["replicas"] == 4)
                assert replicas[0].state.describe()["agree"]

    asyncio.run(main())


def test_a_flushed_store_is_seeded_by_a_replica(server):
    async def main():
        async with running(server) as replicas:
            await observe(replicas, 300)
            await until(lambda: agree(replicas))
            await replicas[0].state._store._redis.flushall()
            await observe(replicas, 300)
            await until(lambda: agree(replicas))
            assert samples(replicas[0]) == 600

    asyncio.run(main())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda client, key: client.hset(key, "position", "99999999999999999999-0"),
        lambda client, key: client.set(key, "a string"),
    ],
    ids=["a position beyond 64 bits", "a key of another type"],
)
def test_a_store_that_nothing_can_be_made_of_is_begun_anew(server, monkeypatch, spoil):
    monkeypatch.setattr("extproc.state.log.BROKEN_S", 1.0)

    async def main():
        async with running(server, 1) as [replica]:
            store = replica.state._store
            await store._redis.delete(store._key("log"), store._key("snapshot"))
            await spoil(store._redis, store._key("snapshot"))
            await until(lambda: replica.state.log.position is None)
            await until(lambda: replica.state.describe()["connected"])

    asyncio.run(main())


def samples(replica):
    return sum(replica.state.log._marks.origins.values())


async def checkpoint(replica):
    before = replica.state.log.checkpoint
    replica.state.log.propose()
    await until(lambda: replica.state.log.checkpoint != before and replica.state.log.agrees)


def test_replicas_with_the_same_windows_again_are_equal_again(server, monkeypatch):
    """One after the other goes on with a smaller window, while all of them learn."""
    monkeypatch.setattr(shared_state, "CHECK_LEAST_S", 1.0)

    async def main():
        async with running(server) as replicas:
            await observe(replicas, 300)
            await until(lambda: agree(replicas))
            for replica in replicas:
                before = replica.state.log.checkpoint
                replica.use_windows(512, 4096)
                # The others are told of it, and load what it holds, for windows of their own.
                await until(lambda before=before: replicas[0].state.log.checkpoint != before)
                await observe(replicas, 90)
                await asyncio.sleep(0.3)
            await until(lambda: agree(replicas))
            await until(lambda: all(replica.state.log.agrees for replica in replicas))
            assert samples(replicas[0]) == 570
            assert list(replicas[0].learner.learnt().limits) == ["512", "4096"]

    asyncio.run(main())


async def begins_behind(replica):
    """Wait until the log has lost the entry that a replica has read last."""
    store, last = replica.state._store, replica.state.log.position
    while await store._redis.xrange(store._key("log"), last, last):
        await asyncio.sleep(0.02)


def test_a_trimmed_log_has_a_sleeping_replica_load_the_snapshot(server):
    async def main():
        async with running(server) as replicas:
            sleeping = replicas[2]
            await sleeping.leave()
            sleeping.state._stopping.clear()
            await observe(replicas[:2], 300)
            await until(lambda: agree(replicas[:2]))
            await checkpoint(replicas[0])
            await checkpoint(replicas[0])  # the log is trimmed to the snapshot before
            await asyncio.wait_for(begins_behind(sleeping), 40)
            sleeping.start()
            await until(lambda: agree(replicas))
            assert sleeping.metrics.reloads.labels("trimmed")._value.get() == 1

    asyncio.run(main())


def test_a_replica_that_is_restarted_twenty_times_under_load_loses_nothing(server):
    async def main():
        async with running(server, 2) as replicas:
            observed = 0
            for _ in range(20):
                async with running(server, 1) as [restarted]:
                    await observe([*replicas, restarted], 60)
                    observed += 60
                    await asyncio.sleep(0.05)
            # Both may have read the log before the last one to leave wrote to it.
            await until(lambda: agree(replicas) and samples(replicas[0]) >= observed)
            assert samples(replicas[0]) == observed

    asyncio.run(main())


def test_a_full_store_gets_all_once_it_has_room(server):
    async def main():
        async with running(server) as replicas:
            client = replicas[0].state._store._redis
            await client.config_set("maxmemory", 1)
            await observe(replicas, 90)
            await asyncio.sleep(1.0)
            assert samples(replicas[0]) == 0
            await client.config_set("maxmemory", 0)
            await until(lambda: agree(replicas) and samples(replicas[0]) == 90)

    asyncio.run(main())


def test_a_password_and_a_user(tmp_path, caplog):
    (tmp_path / "password").write_text("secret1\n")
    [needed] = re.findall(r"needs `(~dualpool.+?)`\.", " ".join(OPERATE.read_text().split()))
    permitted = needed.replace("`", "").replace(" and ", " ").split()
    user = ("--user", "dualpool", "on", ">secret1", *permitted)
    with redis_server(tmp_path, "--requirepass", "other", *user) as server:
        known = {"user": "dualpool", "password_file": tmp_path / "password"}

        async def main():
            async with running(server, 2, **known) as replicas:
                await observe(replicas, 30)
                await until(lambda: agree(replicas))
            (tmp_path / "password").write_text("secret2")
            with pytest.raises(StoreError) as refused:
                await store_at(server, **known).find()
            assert "secret" not in str(refused.value)

        asyncio.run(main())


def test_a_store_with_tls(tmp_path):
    if not has_tls():
        pytest.skip("this server was built without TLS")
    authority = Authority(tmp_path)
    with redis_server(tmp_path, authority=authority) as server:
        asyncio.run(shares_with_tls(server, authority))


async def shares_with_tls(server, authority):
    async with running(server, 2, tls=True, ca_file=authority.file) as replicas:
        await observe(replicas, 30)
        await until(lambda: agree(replicas))
    with pytest.raises(StoreError):
        await store_at(server, tls=True).find()  # of no CA that the system knows
    with pytest.raises(StoreError):
        await store_at(server).find()


def test_sentinels_lead_to_the_new_store_after_a_failover(tmp_path, server):
    (folder := tmp_path / "replica").mkdir()
    options = ("--replicaof", "127.0.0.1", str(server.port), "--repl-diskless-sync-delay", "0")
    with redis_server(folder, *options) as other, sentinel_of(folder, server) as port:
        asyncio.run(survives_a_failover(server, other, port))


async def survives_a_failover(server, other, port):
    async with Redis(port=port) as sentinel:
        await has_replica(sentinel, other)
        # The first Sentinel of the list is not there.
        absent = SimpleNamespace(port=1)
        async with running(absent, master="llm", sentinels=(("127.0.0.1", port),)) as replicas:
            await observe(replicas, 300)
            await until(lambda: agree(replicas))
            server.kill()
            await observe(replicas, 90)
            await until(lambda: agree(replicas) and samples(replicas[0]) == 390, 30)
            [master] = (await sentinel.sentinel_masters()).values()
            assert master["port"] == other.port


async def has_replica(sentinel, other):
    for _ in range(200):
        known = await sentinel.sentinel_slaves("llm")
        if [each["port"] for each in known if each["master-link-status"] == "ok"] == [other.port]:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the Sentinel does not know the replica")


@pytest.mark.slow
def test_a_store_that_is_killed_for_ten_seconds(server):
    """It prints how long the states take to be equal after its return: three in one process."""

    async def main():
        async with running(server) as replicas:
            await observe(replicas, 300)
            await until(lambda: agree(replicas))
            server.kill()
            until_s, longest, observed = time.monotonic() + 10, 0.0, 300
            while time.monotonic() < until_s:
                began = time.perf_counter()
                replicas[observed % 3].state.observe(SEEN[observed % len(SEEN)])
                longest = max(longest, time.perf_counter() - began)
                observed += 1
                await asyncio.sleep(0.02)
            await asyncio.to_thread(server.start)
            began = time.perf_counter()
            await until(lambda: agree(replicas))
            print(f"{observed} observations, equal after {time.perf_counter() - began:.2f} s")
            assert samples(replicas[0]) == observed
            assert longest < 0.1

    asyncio.run(main())
