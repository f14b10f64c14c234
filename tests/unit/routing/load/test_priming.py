"""What servers are asked to count, and what their counts teach."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.families import ENOUGH, PROBATION
from extproc.budget.prior import MEASURED
from extproc.budget.values import Outcome
from extproc.budget.weights import TokenWeights
from extproc.routing.load.discovery import Discovery, Stated
from extproc.routing.load.priming import MOST_MISSED, MOST_PRIMED, Priming, samples
from extproc.routing.pools import Pool
from extproc.routing.sound import is_observation

POOLS = (Pool("short", 2048, 2048), Pool("long", 65_536, 65_536))
EXPECTED = [round(TokenWeights(MEASURED).predict(each.asked.measure).tokens) for each in samples()]
BODIES = [each.body for each in samples()]


class Servers:
    """Servers of one pool, whose models all count alike unless there is a `share` of one."""

    def __init__(self, *names, servers=("a",), known=(), shares=None, row=lambda _: POOLS):
        self.discovery, self.known, self.shares = Discovery(), set(known), shares or {}
        self.taught = []
        self.asked = []
        self.discovery.set_servers("long", servers)
        for server in servers:
            self.state(server, *names)
        self.priming = Priming(self.discovery, row, self.known.__contains__, self.taught.append)

    def state(self, server, *names):
        self.discovery.tell("long", server, Stated(models=frozenset(names)))

    def ask(self, server="a"):
        """Ask a server once; return the name that it is asked about, None if there is none."""
        body = self.priming.next("long", server)
        if body is None:
            return None
        asked = json.loads(body)
        self.asked.append(asked["model"])
        name = asked.pop("model")
        count = round(EXPECTED[BODIES.index(asked)] * self.shares.get(name, 1.1))
        assert self.priming.take("long", server, json.dumps({"count": count}).encode())
        return name

    def ask_all(self, server="a"):
        while self.ask(server):
            pass

    def miss(self, server="a", times=MOST_MISSED):
        for _ in range(times):
            self.priming.next("long", server)
            self.priming.miss("long", server)

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
    counts = [round(expected * 1.1) for expected in EXPECTED]
    assert [seen.prompt_tokens for seen in servers.taught] == counts


def test_a_name_whose_first_counts_are_those_of_another_is_asked_no_more():
    servers = Servers("base", "lora-1", "lora-2")
    servers.ask_all()
    assert servers.asked.count("base") == len(samples())
    assert servers.names.count("lora-1") == servers.names.count("lora-2") == PROBATION


def test_a_name_that_counts_otherwise_is_asked_to_the_end():
    servers = Servers("base", "new", shares={"new": 1.2})
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


def test_a_server_is_asked_again_before_another_counts():
    servers = Servers("m", servers=("a", "b"))
    servers.miss("a", MOST_MISSED - 1)
    assert servers.ask("b") is None
    assert servers.ask("a") == "m"


def test_a_server_that_does_not_count_leaves_the_name_to_others():
    servers = Servers("m", servers=("a", "b"))
    for _ in range(10):
        servers.ask("a")
    assert servers.ask("b") is None
    servers.miss("a")
    servers.ask_all("b")
    assert servers.names == ["m"] * len(samples())


def test_a_server_that_counts_again_is_asked_again():
    servers = Servers("m")
    servers.miss()
    servers.ask_all()
    assert servers.names == ["m"] * len(samples())


def test_a_name_that_a_server_does_not_count_leaves_it_time_for_others():
    servers = Servers("gone", "m")
    servers.miss()
    assert [servers.ask() for _ in range(2)] == ["m", "m"]


def test_a_server_that_is_asked_nothing_may_miss():
    servers = Servers("m")
    servers.ask_all()
    servers.miss()
    assert len(servers.taught) == len(samples())


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 2.0])
def test_counts_that_no_tokenizer_resembles_teach_nothing(share):
    servers = Servers("m", shares={"m": share})
    servers.ask_all()
    assert len(servers.asked) == len(samples())
    assert not servers.taught


def test_a_name_whose_counts_are_those_of_no_tokenizer_is_no_proof_for_another():
    servers = Servers("a", "b", shares={"a": 0.5, "b": 0.5})
    servers.ask_all()
    assert servers.asked.count("b") == len(samples())


def test_only_the_largest_pool_is_asked():
    servers = Servers("m", row=lambda _: POOLS[:1])
    assert servers.ask() is None


def test_a_name_that_no_row_has_is_not_asked():
    servers = Servers("m", row=lambda _: ())
    assert servers.ask() is None


def test_a_server_that_is_gone_leaves_its_name_to_others():
    servers = Servers("m", servers=("a", "b"))
    body = servers.priming.next("long", "a")
    assert servers.ask("b") is None
    servers.priming.set_servers("long", ["b"])
    assert servers.priming.take("long", "a", b'{"count": 9}')
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
    servers.priming.next("long", "a")
    assert not servers.priming.take("long", "a", answer)


@given(st.binary(max_size=64))
def test_any_answer_is_read(answer):
    servers = Servers("m")
    servers.priming.next("long", "a")
    servers.priming.take("long", "a", answer)
