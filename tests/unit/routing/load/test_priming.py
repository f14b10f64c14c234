"""What servers are asked to count, and what their counts teach."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.families import ENOUGH, PROBATION
from extproc.budget.values import Outcome
from extproc.routing.load.discovery import Discovery, Stated
from extproc.routing.load.priming import MOST_MISSED, MOST_PRIMED, Priming, samples
from extproc.routing.sound import is_observation


class Servers:
    """Servers of one pool, whose models all count alike unless `more` tokens are added."""

    def __init__(self, *names, servers=("a",), known=(), more=None):
        self.discovery, self.known, self.more = Discovery(), set(known), more or {}
        self.taught = []
        self.asked = []
        self.discovery.set_servers("short", servers)
        for server in servers:
            self.state(server, *names)
        self.priming = Priming(self.discovery, self.known.__contains__, self.taught.append)

    def state(self, server, *names):
        self.discovery.tell("short", server, Stated(models=frozenset(names)))

    def ask(self, server="a"):
        """Ask a server once; return the name that it is asked about, None if there is none."""
        body = self.priming.next("short", server)
        if body is None:
            return None
        asked = json.loads(body)
        self.asked.append(asked["model"])
        count = len(body) + self.more.get(asked["model"], 0)
        count -= len(asked["model"])
        assert self.priming.take("short", server, json.dumps({"count": count}).encode())
        return asked["model"]

    def ask_all(self, server="a"):
        while self.ask(server):
            pass

    def miss(self, server="a", *, refused):
        self.priming.miss("short", server, refused=refused)

    @property
    def names(self):
        return [seen.asked.model for seen in self.taught]


def test_the_samples_are_few_small_and_as_many_as_weights_learn():
    assert len(samples()) == ENOUGH
    assert all(200 < sample.asked.measure.text_bytes < 4096 for sample in samples()[:PROBATION])
    assert sum(len(json.dumps(sample.body)) for sample in samples()) < 1 << 16


def test_the_samples_have_turns_and_tools():
    assert max(len(sample.body["messages"]) for sample in samples()) > 2
    assert any(sample.body.get("tools") for sample in samples())


def test_a_model_is_taught_once_all_samples_are_counted():
    servers = Servers("m")
    for _ in samples():
        assert not servers.taught
        servers.ask()
    assert servers.names == ["m"] * len(samples())
    assert {seen.outcome for seen in servers.taught} == {Outcome.COUNTED}
    assert all(map(is_observation, servers.taught))
    assert servers.ask() is None


def test_what_is_taught_is_what_was_counted():
    servers = Servers("m")
    servers.ask_all()
    bodies = [json.dumps({"model": "", **s.body}, ensure_ascii=False) for s in samples()]
    compact = [json.loads(body) for body in bodies]
    counts = [
        len(json.dumps(b, ensure_ascii=False, separators=(",", ":")).encode()) for b in compact
    ]
    assert [seen.prompt_tokens for seen in servers.taught] == counts


def test_a_name_whose_first_counts_are_those_of_another_is_asked_no_more():
    servers = Servers("base", "lora-1", "lora-2")
    servers.ask_all()
    assert servers.asked.count("base") == len(samples())
    assert servers.names.count("lora-1") == servers.names.count("lora-2") == PROBATION


def test_a_name_that_counts_otherwise_is_asked_to_the_end():
    servers = Servers("base", "new", more={"new": 1})
    servers.ask_all()
    assert servers.names.count("new") == len(samples())


def test_a_model_that_is_known_is_not_asked():
    servers = Servers("m", known=["m"])
    assert servers.ask() is servers.ask() is None


def test_a_model_that_answers_made_known_meanwhile_is_not_taught():
    servers = Servers("m")
    servers.ask()
    servers.known.add("m")
    servers.ask_all()
    assert not servers.taught


def test_a_name_of_ours_is_taught_as_answers_name_it():
    servers = Servers("other")
    servers.ask_all()
    assert set(servers.names) == {"OTHER"}


def test_two_servers_count_different_names_at_a_time():
    servers = Servers("m", "n", servers=("a", "b"))
    assert (servers.ask("a"), servers.ask("b"), servers.ask("a")) == ("m", "n", "m")


def test_a_name_that_is_new_is_asked_later():
    servers = Servers("m")
    servers.ask_all()
    servers.state("a", "m", "new")
    assert servers.ask() == "new"


def test_a_server_that_refuses_is_asked_no_more_and_another_counts():
    servers = Servers("m", servers=("a", "b"))
    servers.priming.next("short", "a")
    assert servers.ask("b") is None
    servers.miss("a", refused=True)
    assert servers.ask("a") is None
    assert servers.ask("b") == "m"


def test_a_refusal_by_a_server_that_is_asked_nothing_changes_nothing():
    servers = Servers("m")
    servers.ask_all()
    servers.miss(refused=True)
    assert len(servers.taught) == len(samples())


def test_what_was_counted_before_a_refusal_teaches():
    servers = Servers("m")
    for _ in range(10):
        servers.ask()
    servers.miss(refused=True)
    assert servers.names == ["m"] * 10


def test_a_server_that_is_slow_is_asked_again_but_not_for_ever():
    servers = Servers("m")
    for _ in range(MOST_MISSED - 1):
        servers.priming.next("short", "a")
        servers.miss(refused=False)
    assert servers.ask() == "m"
    for _ in range(MOST_MISSED):
        servers.miss(refused=False)
    assert servers.ask() is None


def test_a_server_that_is_gone_leaves_its_name_to_others():
    servers = Servers("m", servers=("a", "b"))
    body = servers.priming.next("short", "a")
    assert servers.ask("b") is None
    servers.priming.set_servers("short", ["b"])
    assert servers.priming.take("short", "a", b'{"count": 9}')
    assert body
    assert servers.ask("b") == "m"


def test_names_are_bounded():
    servers = Servers(*(f"m{number:04}" for number in range(MOST_PRIMED + 5)))
    servers.ask_all()
    assert len(set(servers.asked)) == MOST_PRIMED


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"count": 0}', b'{"count": -3}', b'{"count": 1e30}', b"\xff"]
)
def test_what_is_no_count_teaches_nothing(answer):
    servers = Servers("m")
    servers.priming.next("short", "a")
    assert not servers.priming.take("short", "a", answer)


@given(st.binary(max_size=64))
def test_any_answer_is_read(answer):
    servers = Servers("m")
    servers.priming.next("short", "a")
    servers.priming.take("short", "a", answer)
