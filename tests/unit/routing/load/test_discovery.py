"""What servers state of themselves, read and put together."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.routing.load.discovery import (
    MOST_NAME_CHARS,
    MOST_NAMES,
    MOST_WINDOW,
    Discord,
    Discovery,
    Found,
    Stated,
    compare,
    describe_discord,
    describe_found,
    read_models,
)
from extproc.simulator.pool.answer import describe_models


def answer(*cards):
    return json.dumps({"object": "list", "data": cards}).encode()


def card(name, window=None, parent=None):
    # As vLLM lists them: of an adapter it states no window.
    return {"id": name, "max_model_len": window, "parent": parent, "root": "/x", "permission": []}


def stated(window=8192, *names, adapters=()):
    return Stated(window, frozenset(names), frozenset(adapters))


def found(*servers, more=0):
    """What so many servers state, and of how many `more` nothing is known."""
    discovery = Discovery()
    discovery.set_servers("short", range(len(servers) + more))
    for number, each in enumerate(servers):
        discovery.tell("short", number, each)
    return discovery.found()["short"]


def test_the_names_of_a_pool_are_bounded():
    server = [stated(1, *(f"{number}-{name}" for name in range(1024))) for number in range(9)]
    together = found(*server)
    assert len(together.models) == 5 * 1024
    assert not together.is_whole


def test_models_aliases_and_adapters_are_read():
    read = read_models(answer(card("m", 8192), card("alias", 8192), card("sql", None, "m")))
    assert read == stated(8192, "m", "alias", adapters=["sql"])
    assert read.names == {"m", "alias", "sql"}


def test_the_answer_of_the_simulated_pool_is_read():
    assert read_models(describe_models("m", 4096, 0, "x")) == stated(4096, "m")


def test_the_least_window_of_a_server_counts():
    assert read_models(answer(card("a", 8192), card("b", 4096))).window == 4096


@pytest.mark.parametrize("window", [None, 0, -1, MOST_WINDOW + 1, 10**40])
def test_a_window_that_cannot_be_is_none(window):
    assert read_models(answer(card("m", window))).window == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"data": []}',
        b'{"data": {}}',
        b'{"data": [{}]}',
        b'{"data": [{"id": 1}]}',
        b'{"data": [{"id": "m", "max_model_len": "8192"}]}',
        b'{"data": [{"id": "\xff"}]}',
        b'{"data": [{"id": ""}]}',
        b'{"data": [{"id": "m", "x": ' + b"[" * 100_000,
    ],
)
def test_what_lists_no_model_is_none(data):
    assert read_models(data) is None


@given(st.binary(max_size=64))
def test_no_bytes_raise(data):
    read_models(data)
    read_models(b'{"data": [{"id": "m", "max_model_len": ' + data)


def test_what_is_kept_of_a_server_is_bounded():
    many = read_models(answer(*(card(str(n), 8192) for n in range(MOST_NAMES + 5))))
    long = read_models(answer(card("m"), card("x" * (MOST_NAME_CHARS + 1))))
    text = read_models(answer(*(card(f"{n:0256}") for n in range(MOST_NAMES))))
    assert len(many.models) == MOST_NAMES
    assert long.models == {"m"}
    assert sum(map(len, text.models)) <= 1 << 16
    assert not any(each.is_whole for each in (many, long, text))


def test_the_servers_of_a_pool_are_put_together():
    both = found(stated(8192, "m", adapters=["a"]), stated(4096, "m", "b"), stated(8192), more=2)
    assert (both.servers, both.answered) == (5, 3)
    assert dict(both.windows) == {4096: 1, 8192: 2}
    assert both.window == 4096
    assert (both.models, both.adapters) == (("b", "m"), ("a",))
    assert both.apart == ("a", "b", "m")


def test_of_servers_that_have_not_answered_nothing_is_known():
    assert found(more=2) == Found(servers=2)
    assert Found().window == 0


def test_a_server_that_states_no_window_says_nothing_of_it():
    assert dict(found(stated(0, "m"), stated(8192, "m")).windows) == {8192: 1}


def test_the_last_word_of_a_server_counts_and_is_kept_while_the_server_is_there():
    discovery = Discovery()
    discovery.set_servers("short", [1, 2])
    discovery.tell("short", 1, stated(4096))
    discovery.tell("short", 2, stated(8192))
    discovery.tell("short", 1, stated(2048))
    discovery.set_servers("short", [1, 2])
    assert dict(discovery.found()["short"].windows) == {2048: 1, 8192: 1}
    discovery.set_servers("short", [2])
    discovery.tell("short", 1, stated(4096))  # too late
    discovery.tell("long", 1, stated(4096))
    assert dict(discovery.found()["short"].windows) == {8192: 1}
    discovery.keep(["long"])
    assert discovery.found() == {}


def test_the_version_changes_with_what_is_known():
    discovery = Discovery()
    discovery.set_servers("short", [1])
    discovery.tell("short", 1, stated(4096))
    before = discovery.version
    discovery.tell("short", 1, stated(4096))
    discovery.set_servers("short", [1])
    discovery.keep(["short"])
    assert discovery.version == before
    discovery.keep([])
    assert discovery.version != before


def test_servers_that_agree_have_no_discord():
    found_ = found(stated(8192, "m", adapters=["a"]), stated(8192, "m", adapters=["a"]), more=1)
    for models in (["*"], ["m", "a"], ["m", "a*"]):
        discord = compare(found_, 8192, models)
        assert discord == Discord()
        assert not any(discord.counts.values())


@pytest.mark.parametrize("windows", [(4096,), (65536,), (4096, 8192)])
def test_windows_that_differ_are_told(windows):
    discord = compare(found(*(stated(each, "m") for each in windows)), 8192, ["*"])
    assert discord.windows == windows
    assert discord.counts["window"] == 1
    assert discord.counts["servers"] == len(windows) - 1


def test_names_that_differ_are_told():
    servers = stated(0, "m", adapters=["a"]), stated(0, "m", "b")
    discord = compare(found(*servers), 8192, ["m", "a", "c", "d*"])
    assert discord.missing == ("a", "c")
    assert discord.unlisted == ("b",)
    assert discord.apart == ("a", "b")


def test_names_that_were_left_out_are_not_missed():
    half = Stated(0, frozenset({"m"}), frozenset(), is_whole=False)
    assert compare(found(half, stated(0, "m", "b")), 8192, ["c", "m", "b"]) == Discord()


def test_before_any_answer_nothing_is_missed():
    assert compare(Found(servers=2), 8192, ["m"]) == Discord()


def test_discord_is_described_in_lines():
    names = tuple(f"n{n}" for n in range(12))
    discord = Discord((4096, 8192), ("a\nb",), names, ("c",))
    assert describe_discord(discord, 8192, 4096) == {
        "window": "its servers state max_model_len 4096 and 8192, the settings 8192: 4096 counts",
        "missing": 'not all of its servers have what its row lists: "a\\nb"',
        "unlisted": "its servers have what its row does not list: "
        + ", ".join(f'"{name}"' for name in names[:10])
        + " and 2 more",
        "apart": 'only some of its servers have: "c"',
    }
    assert describe_discord(Discord(), 8192, 8192) == {}


def test_what_is_found_is_described_within_a_bound():
    names = [f"n{n:03}" for n in range(102)]
    described = describe_found(found(stated(4096, *names)), Discord(missing=("x",)))
    assert described["models"] == [*names[:100], "and 2 more"]
    assert (described["servers"], described["answered"]) == (1, 1)
    assert described["max_model_len"] == {"4096": 1}
    assert described["missing"] == ["x"]


def test_the_names_of_one_server_are_all_that_it_states():
    discovery = Discovery()
    discovery.set_servers("short", [1, 2])
    discovery.tell("short", 1, stated(1, "m", adapters=["a"]))
    assert discovery.names("short", 1) == {"m", "a"}
    assert discovery.names("short", 2) == discovery.names("long", 1) == frozenset()
