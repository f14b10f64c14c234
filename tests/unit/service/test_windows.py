"""The windows that count, and what is said of the others."""

import pytest

from extproc.config.settings import LoadSettings, PoolSettings, RowSettings, Settings
from extproc.routing.load.discovery import Stated
from extproc.service.windows import Windows

ASKED = LoadSettings(discover=True)


def of(window, *names):
    return Stated(window, frozenset(names or ("m",)))


def told(windows, pool, *servers):
    windows.discovery.set_servers(pool, range(len(servers)))
    for number, stated in enumerate(servers):
        if stated:
            windows.discovery.tell(pool, number, stated)
    return windows.look()


def used(windows, settings):
    return {pool.name: pool.max_model_len for pool in windows.capped(settings).pools}


def test_without_an_answer_the_settings_count_and_nothing_is_said(caplog):
    windows = Windows(Settings(load=ASKED))
    assert not told(windows, "short", None, None)
    assert used(windows, Settings(load=ASKED)) == {"short": 8192, "long": 65_536}
    assert caplog.messages == []
    assert dict(windows.describe()["short"], used=0)["answered"] == 0
    assert list(windows.sizes()) == [
        ("short", "settings", 8192),
        ("short", "used", 8192),
        ("long", "settings", 65_536),
        ("long", "used", 65_536),
    ]


def test_a_smaller_window_counts_and_is_logged_once(caplog):
    windows = Windows(Settings(load=ASKED))
    assert told(windows, "short", of(4096))
    assert not windows.look()
    assert not told(windows, "short", of(4096), of(4096))
    assert used(windows, Settings(load=ASKED))["short"] == 4096
    assert caplog.messages == [
        "pool short: its servers state max_model_len 4096, the settings 8192: 4096 counts"
    ]
    assert ("short", "servers", 4096) in list(windows.sizes())
    assert ("short", "window", 1) in list(windows.counts())
    assert windows.describe()["short"]["used"] == 4096


def test_a_larger_window_is_logged_and_does_not_count(caplog):
    windows = Windows(Settings(load=ASKED))
    assert not told(windows, "short", of(16_384))
    assert caplog.messages == [
        "pool short: its servers state max_model_len 16384, the settings 8192: 8192 counts"
    ]


def test_a_window_that_is_right_again_counts_and_is_logged(caplog):
    windows = Windows(Settings(load=ASKED))
    told(windows, "short", of(4096))
    with caplog.at_level("INFO"):
        assert told(windows, "short", of(8192))
    assert used(windows, Settings(load=ASKED))["short"] == 8192
    assert caplog.messages[1].startswith("pool short: no longer: its servers state")


def test_a_window_that_changes_is_logged_again(caplog):
    windows = Windows(Settings(load=ASKED))
    told(windows, "short", of(4096))
    assert told(windows, "short", of(2048))
    assert len(caplog.messages) == 2


def test_servers_that_disagree_are_logged_and_counted(caplog):
    windows = Windows(Settings(load=ASKED))
    assert told(windows, "short", of(8192), of(4096, "m", "a"))
    assert caplog.messages == [
        "pool short: its servers state max_model_len 4096 and 8192, the settings 8192: 4096 counts",
        'pool short: only some of its servers have: "a"',
    ]
    counts = {kind: count for pool, kind, count in windows.counts() if pool == "short"}
    assert counts == {"window": 1, "servers": 1, "missing": 0, "unlisted": 0, "apart": 1}
    assert windows.describe()["short"]["max_model_len"] == {"4096": 1, "8192": 1}


def test_names_of_a_row_and_of_its_servers_are_compared(caplog):
    pools = tuple(PoolSettings(name=name, max_model_len=n) for name, n in (("a", 1), ("b", 2)))
    windows = Windows(Settings(load=ASKED, rows=(RowSettings(models=("m", "sql"), pools=pools),)))
    told(windows, "a", of(1, "m", "other"))
    assert caplog.messages == [
        'pool a: not all of its servers have what its row lists: "sql"',
        'pool a: its servers have what its row does not list: "other"',
    ]


def moved(**more):
    short = PoolSettings(name="short", max_model_len=16_384, **more)
    return Settings(load=ASKED, pools=(short, PoolSettings(name="long", max_model_len=65_536)))


def test_what_is_known_of_the_same_servers_stays_under_other_settings(caplog):
    windows = Windows(Settings(load=ASKED))
    told(windows, "short", of(4096))
    windows.use(moved())
    assert used(windows, moved())["short"] == 4096
    assert "the settings 16384: 4096 counts" in caplog.messages[1]


@pytest.mark.parametrize(
    "other",
    [
        moved(address="elsewhere:1"),
        Settings(),
        Settings(load=ASKED, pools=(PoolSettings(name="new", max_model_len=1),)),
    ],
)
def test_what_is_known_of_other_servers_is_forgotten(other):
    windows = Windows(Settings(load=ASKED))
    told(windows, "short", of(4096))
    windows.use(other)
    assert windows.capped(other) is other
    assert (windows.describe(), list(windows.counts())) == ({}, [])
    assert bool(list(windows.sizes())) == other.load.discover
