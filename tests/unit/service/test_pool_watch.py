"""The questions to the pools' servers, as the settings come and go."""

import asyncio
import logging

import pytest
from prometheus_client import CollectorRegistry

from extproc.config.errors import UserError
from extproc.config.settings import LoadSettings, PoolSettings, Settings
from extproc.routing.load.pool_load import State
from extproc.service.certificates import CertificateError
from extproc.service.polling import Poller
from extproc.service.pool_watch import Counting, PoolWatch
from tests.support.certificate_authority import Authority
from tests.unit.service.test_polling import FakeServer, until


def settings(server: FakeServer, *, spill: bool = True, discover: bool = False) -> Settings:
    pools = (PoolSettings(name="only", max_model_len=8192, address=server.address),)
    return Settings(pools=pools, load=LoadSettings(discover=discover, spill=spill, every_ms=50))


def watching(scenario, *, spill: bool = True):
    async def main():
        server, told = FakeServer(), []
        await server.start()
        try:
            watch = PoolWatch(settings(server, spill=spill), CollectorRegistry(), told.append)
            async with asyncio.timeout(20):
                return await scenario(server, watch, told)
        finally:
            await server.stop()

    return asyncio.run(main())


def is_known(told) -> bool:
    return bool(told) and told[-1]["only"].state is State.KNOWN


def test_nobody_is_asked_unless_the_load_counts():
    async def scenario(server, watch, told):
        async with watch.running():
            await asyncio.sleep(0.2)
        assert (server.asked, server.asked_models, told) == (0, 0, [])
        assert watch.describe() == watch.describe_windows() == {}
        assert watch.seen() == {"only": {"stated": 8192}}

    watching(scenario, spill=False)


def test_the_questions_begin_and_end_with_the_setting():
    async def scenario(server, watch, told):
        async with watch.running():
            watch.use(settings(server))
            await until(lambda: is_known(told))
            assert watch.describe()["only"]["waiting"] == 7.0
            watch.use(settings(server, spill=False))
            asked = server.asked
            await asyncio.sleep(0.2)
            assert server.asked <= asked + 1
            assert watch.describe() == {}

    watching(scenario, spill=False)


def test_other_servers_are_asked_once_the_settings_name_them():
    async def scenario(server, watch, told):
        other = FakeServer()
        await other.start()
        try:
            async with watch.running():
                await until(lambda: is_known(told))
                watch.use(settings(other))
                await until(lambda: other.asked)
        finally:
            await other.stop()

    watching(scenario)


def test_settings_that_change_nothing_here_leave_the_questions_alone():
    async def scenario(server, watch, told):
        async with watch.running():
            await until(lambda: is_known(told))
            watch.use(settings(server).model_copy(update={"workers": 2}))
            assert watch.describe()

    watching(scenario)


def test_settings_may_change_before_it_runs():
    async def scenario(server, watch, told):
        watch.use(settings(server))
        async with watch.running():
            await until(lambda: is_known(told))

    watching(scenario, spill=False)


def test_a_fault_is_logged_and_ends_the_questions_alone(monkeypatch, caplog):
    async def broken(self):
        raise ZeroDivisionError

    monkeypatch.setattr(Poller, "run", broken)

    async def scenario(server, watch, told):
        async with watch.running():
            await until(lambda: "asked no more" in caplog.text)

    with caplog.at_level(logging.ERROR):
        watching(scenario)


def with_tls(tls_ca: str, *, spill: bool = True) -> Settings:
    pools = (PoolSettings(name="only", max_model_len=8, tls_ca=tls_ca),)
    return Settings(pools=pools, load=LoadSettings(spill=spill))


def test_a_tls_ca_that_cannot_be_read_is_named_with_the_fix_and_changes_nothing(tmp_path):
    missing = str(tmp_path / "ca.pem")

    async def scenario(server, watch, told):
        async with watch.running():
            with pytest.raises(CertificateError, match=f"{missing} .*pool only.*load.spill to f"):
                watch.use(with_tls(missing))
            await until(lambda: is_known(told))

    watching(scenario)


def test_a_pool_with_tls_is_asked_with_its_authority(tmp_path):
    file = str(Authority(tmp_path).file)
    assert PoolWatch(with_tls(file), CollectorRegistry(), print)._pollers


def test_a_tls_ca_that_is_envoys_alone_is_no_fault_without_spill(tmp_path):
    missing = with_tls(str(tmp_path / "ca.pem"), spill=False)
    watch = PoolWatch(missing, CollectorRegistry(), print)
    assert watch.capped(missing) is missing


def test_windows_are_asked_at_the_start_and_stay_known_under_other_settings():
    async def main():
        server, resized = FakeServer(), []
        await server.start()
        given = settings(server, spill=False, discover=True)
        watch = PoolWatch(given, CollectorRegistry(), print, lambda: resized.append(1))
        try:
            async with asyncio.timeout(20), watch.running():
                await until(lambda: resized)
                watch.use(settings(server, discover=True))
                assert watch.capped(given).pools[0].max_model_len == 4096
                await until(lambda: "load" in watch.seen()["only"])
        finally:
            await server.stop()
        assert len(resized) == 1
        assert watch.describe_windows()["discovered"]["only"]["used"] == 4096

    asyncio.run(main())


def test_windows_that_cannot_be_used_are_logged(caplog):
    async def main():
        server = FakeServer()
        await server.start()

        def fail():
            raise UserError("no tokenizer")

        given = settings(server, spill=False, discover=True)
        watch = PoolWatch(given, CollectorRegistry(), print, fail)
        try:
            async with asyncio.timeout(20), watch.running():
                await until(lambda: "do not count: no tokenizer" in caplog.text)
        finally:
            await server.stop()

    asyncio.run(main())


def test_of_a_shadow_only_the_largest_pool_is_asked():
    pools = tuple(PoolSettings(name=name, max_model_len=n) for name, n in (("a", 1), ("b", 2)))
    given = Settings(pools=pools, shadow=True, load=LoadSettings(discover=True))
    watch = PoolWatch(given, CollectorRegistry(), print)
    [poller] = watch._pollers
    assert [pool.name for pool in poller._pools] == ["b"]


def test_models_that_are_discovered_are_counted():
    async def main():
        server, taught = FakeServer(), []
        await server.start()
        given = settings(server, spill=False, discover=True)
        watch = PoolWatch(
            given,
            CollectorRegistry(),
            print,
            counting=Counting(lambda _: False, taught.append),
        )
        try:
            async with asyncio.timeout(30), watch.running():
                await until(lambda: taught)
        finally:
            await server.stop()
        assert watch.counts()["dualpool_pool_polls_total only tokenize reported"] == len(taught)

    asyncio.run(main())
