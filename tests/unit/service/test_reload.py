"""Settings that change while the service runs."""

import asyncio
import os
import signal

import pytest
from prometheus_client import CollectorRegistry

from extproc.config.errors import UserError
from extproc.config.load import load
from extproc.config.settings import (
    BudgetSettings,
    EnvoySettings,
    ListenSettings,
    ModelSettings,
    Settings,
)
from extproc.service import reload as module
from extproc.service.reload import Outcome, Reloader, Source
from extproc.stream.metrics import WorkerMetrics
from tests.support.waiting import until

OTHER = Settings(budget=BudgetSettings(target=0.002))


class Reloading:
    """A reloader of settings that a test sets; `applied` are those that it passed on."""

    def __init__(self, path=None):
        self.next, self.applied, self.loads = Settings(), [], 0
        self.registry = CollectorRegistry()
        source = Source(path, self._load)
        metrics = WorkerMetrics(self.registry)
        self.reloader = Reloader(Settings(), source, self.applied.append, metrics)

    def _load(self):
        self.loads += 1
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def reload(self, settings):
        self.next = settings
        return asyncio.run(self.reloader.reload())

    def count(self, outcome):
        name = "dualpool_reloads_total"
        return self.registry.get_sample_value(name, {"outcome": outcome.value})

    def loaded_at(self):
        return self.registry.get_sample_value("dualpool_settings_loaded_timestamp_seconds")


def test_what_has_changed_is_applied_logged_and_counted(caplog):
    given = Reloading()
    with caplog.at_level("INFO"):
        assert given.reload(OTHER) is Outcome.APPLIED
    assert given.applied == [OTHER]
    assert caplog.messages == ["the settings are changed: budget.target: 0.001 -> 0.002"]
    assert given.count(Outcome.APPLIED) == 1


def test_settings_that_are_the_same_are_not_applied():
    given = Reloading()
    assert given.reload(Settings()) is Outcome.UNCHANGED
    assert given.applied == []


def test_a_file_with_faults_changes_nothing_and_all_are_logged(caplog):
    given = Reloading()
    before = given.loaded_at()
    assert given.reload(UserError("a: is wrong\nb: is wrong")) is Outcome.REFUSED
    assert given.applied == []
    assert caplog.messages == [
        "the settings are not changed, because of their faults:\na: is wrong\nb: is wrong"
    ]
    assert (given.count(Outcome.REFUSED), given.loaded_at()) == (1, before)


def test_a_fault_of_ours_changes_nothing(caplog):
    given = Reloading()
    assert given.reload(RuntimeError("bug")) is Outcome.REFUSED
    assert caplog.messages == ["the settings are not changed: they cannot be loaded"]


def test_what_cannot_be_applied_stays_to_be_applied():
    given = Reloading()
    given.reloader._apply = lambda _settings: (_ for _ in ()).throw(UserError("no such file"))
    assert given.reload(OTHER) is Outcome.REFUSED
    given.reloader._apply = given.applied.append
    assert given.reload(OTHER) is Outcome.APPLIED


def test_what_needs_a_restart_stays_and_is_named(caplog):
    given = Reloading()
    listen = ListenSettings(http="127.0.0.1:1")
    wanted = OTHER.model_copy(update={"workers": 3, "listen": listen})
    assert given.reload(wanted) is Outcome.APPLIED
    assert given.applied == [OTHER]
    assert caplog.messages[0] == (
        "changed in the file, in use after a restart: "
        'listen.http: "127.0.0.1:8081" -> "127.0.0.1:1"; workers: 1 -> 3'
    )


def test_a_bound_that_envoy_shares_is_named(caplog):
    given = Reloading()
    given.reload(Settings(envoy=EnvoySettings(large_body_bytes=9)))
    assert caplog.messages[0].startswith(
        "changed in the file, in use after a restart: envoy.large_body"
    )


def test_what_envoy_holds_too_is_named(caplog):
    with caplog.at_level("INFO"):
        Reloading().reload(Settings(envoy=EnvoySettings(fail_open_bytes_per_token=3.0)))
    assert "render it again" in caplog.messages[0]


def watched(given, act):
    async def main():
        async with given.reloader.watching():
            await asyncio.sleep(0.05)
            act()
            await until(lambda: given.loads)
            await asyncio.sleep(0.1)

    asyncio.run(main())
    return given.loads


def test_a_hangup_reloads(tmp_path):
    given = Reloading(tmp_path / "none")
    assert watched(given, lambda: os.kill(os.getpid(), signal.SIGHUP)) == 1


def test_a_hangup_without_a_file_reloads_the_defaults():
    given = Reloading()
    assert watched(given, lambda: os.kill(os.getpid(), signal.SIGHUP)) == 1
    assert given.count(Outcome.UNCHANGED) == 1


def replaced(file):
    new = file.with_name("new")
    new.write_text("new")
    new.replace(file)


def relinked(file):
    new = file.with_name("new")
    new.symlink_to(file.with_name("other"))
    new.replace(file)


CHANGES = [
    replaced,
    relinked,
    lambda file: file.write_text("longer"),
    lambda file: file.chmod(0o640),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_is_loaded_once(tmp_path, monkeypatch, change):
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    file = tmp_path / "dualpool.yaml"
    file.write_text("first")
    file.with_name("other").write_text("other")
    given = Reloading(file)
    given.next = UserError("wrong")
    assert watched(given, lambda: change(file)) == 1


def test_a_hangup_waits_until_the_file_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SETTLED_S", 0.1)
    file = tmp_path / "dualpool.yaml"
    file.write_text("")
    given = Reloading(file)
    found = []
    given._load = lambda: found.append(file.read_text()) or given.next
    given.reloader._source._read = given._load

    async def main():
        async with given.reloader.watching():
            os.kill(os.getpid(), signal.SIGHUP)
            for length in range(8):
                file.write_text("x" * length)
                await asyncio.sleep(0.03)
            await until(lambda: found)

    asyncio.run(main())
    assert found == ["x" * 7]


def test_a_tokenizer_that_is_another_file_is_applied(tmp_path, caplog):
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    given = Reloading()
    models = (ModelSettings(name="m", tokenizer=str(file)),)
    assert given.reload(Settings(models=models)) is Outcome.APPLIED
    assert given.reload(Settings(models=models)) is Outcome.UNCHANGED
    file.write_text("{ }")
    with caplog.at_level("INFO"):
        assert given.reload(Settings(models=models)) is Outcome.APPLIED
    assert "models[0].tokenizer: the file has changed" in caplog.text
    assert given.reload(Settings(models=models)) is Outcome.UNCHANGED


@pytest.mark.parametrize("text", ["", "# the settings\n"])
def test_a_file_without_settings_changes_nothing(tmp_path, caplog, text):
    file = tmp_path / "dualpool.yaml"
    file.write_text("shadow: true")
    applied, source = list[Settings](), Source(file, lambda: load(file))
    reloader = Reloader(source.load(), source, applied.append, WorkerMetrics(CollectorRegistry()))
    file.write_text(text)
    assert (asyncio.run(reloader.reload()), applied) == (Outcome.REFUSED, [])
    assert f"{file}: holds no settings; for the defaults write {{}}" in caplog.text


def test_a_file_with_a_fault_is_refused_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    file = tmp_path / "dualpool.yaml"
    file.write_text("shadow: true")
    given = Reloading(file)
    given.next = UserError("a fault")

    async def main():
        async with given.reloader.watching():
            file.write_text("")
            await until(lambda: given.count(Outcome.REFUSED))
            await asyncio.sleep(0.1)

    asyncio.run(main())
    assert given.count(Outcome.REFUSED) == 1


def test_a_file_that_is_gone_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    file = tmp_path / "dualpool.yaml"
    file.write_text("")
    given = Reloading(file)

    async def main():
        async with given.reloader.watching():
            file.unlink()
            await asyncio.sleep(0.1)

    asyncio.run(main())
    assert given.loads == 0
