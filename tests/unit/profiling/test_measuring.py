"""What is measured of a server, and where."""

import asyncio
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from extproc.planner.traffic.lengths import Length
from extproc.profiling import measuring
from extproc.profiling.fitting import Decode, FirstToken, fit
from extproc.profiling.measuring import (
    Measured,
    Point,
    decode_points,
    find_max_num_seqs,
    measure,
    prompt_sizes,
    rounds_of,
)
from extproc.profiling.vllm import Facts, VllmError, connect, new_session
from extproc.progress import showing
from extproc.simulator.engine.instance import Profile
from tests.support.fake_vllm import FACTS as FAKE
from tests.support.fake_vllm import FakeVllm
from tests.support.pool_client import serving, settings

PACE = Profile(
    weights_ms=4.0, sequence_ms=0.5, chunk_tokens=512, prefill_token_ms=0.02, kv_token_ms=0.0
)
FACTS = st.builds(
    lambda window, size, blocks: Facts(
        model="m", max_model_len=window, block_size=size, num_blocks=blocks + window // size
    ),
    st.integers(64, 8192),
    st.sampled_from([16, 32, 128]),
    st.integers(1, 4000),
)


@given(FACTS)
def test_every_prompt_leaves_room_for_a_token(facts):
    sizes = prompt_sizes(facts)
    assert list(sizes) == sorted(set(sizes))
    assert max(sizes) < min(facts.max_model_len, facts.kv_tokens)


@given(FACTS, st.integers(1, 256))
def test_no_point_preempts_or_exceeds_the_window(facts, seqs):
    for point in decode_points(facts, seqs):
        longest = point.prompt_tokens + point.beside  # what runs beside the probe
        assert point.beside >= 3 * point.tokens
        assert longest <= facts.max_model_len
        blocks = -(-longest // facts.block_size)
        assert point.sequences <= seqs
        assert point.sequences * blocks <= facts.num_blocks


def test_the_loads_reach_the_sequences_and_the_kv_entries_of_a_large_server():
    facts = Facts(model="m", max_model_len=65_536, block_size=16, num_blocks=28_000)
    points = decode_points(facts, 1024)
    assert max(p.sequences for p in points) == 1024
    fullest = [p.sequences * p.prompt_tokens / facts.kv_tokens for p in points]
    assert max(fullest) > 0.65
    assert any(p.sequences == 512 and full > 0.65 for p, full in zip(points, fullest, strict=True))


@pytest.mark.parametrize("most", [4, 8, 32])
def test_few_sequences_tell_what_each_costs_from_what_its_context_costs(most):
    facts = Facts(model="m", max_model_len=8192, block_size=16, num_blocks=65_536)
    points = decode_points(facts, most)
    ones, sequences = [1] * len(points), [p.sequences for p in points]
    rows = np.array([ones, sequences, [p.sequences * p.prompt_tokens for p in points]])
    assert np.linalg.cond(rows / np.linalg.norm(rows, axis=1, keepdims=True)) < 10


def test_a_load_that_takes_seconds_to_fill_is_probed_less_often():
    assert rounds_of(Point(8, 16, 48, 200)) > rounds_of(Point(8, 16_000, 48, 200))


async def _measure() -> Measured:
    pool = settings(window=512, profile=PACE, blocks=128)
    async with serving(pool) as client, new_session() as session:
        vllm = await connect(session, str(client.make_url("/")))
        with showing(Console(quiet=True)) as show:
            return await measure(vllm, 12, show)


@pytest.mark.slow
def test_a_server_of_a_known_pace_is_found_to_have_it():
    measured = asyncio.run(_measure())
    assert measured.max_num_seqs == 8
    assert {type(m) for m in measured.measurements} == {Decode, FirstToken}
    pace = fit(measured.measurements, 512).profile
    # The test, the client and the server share a core: times are only ever longer.
    assert 3.0 < pace.weights_ms + pace.sequence_ms < 12.0


class Steps:
    """A display that records what it is asked to show."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.total = self.done = 0

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, text: str, items: int | Sequence[float]) -> None:
        self.said.append(text)
        self.total = items if isinstance(items, int) else len(items)

    def advance(self) -> None:
        self.done += 1


def measure_fake(vllm: FakeVllm, most: int = 2, steps: Steps | None = None) -> Measured:
    return asyncio.run(measure(vllm, most, steps or Steps()))


@pytest.fixture
def few(monkeypatch):
    """Measure each load once and each prompt twice, to be done within seconds."""
    monkeypatch.setattr(measuring, "_ROUNDS", 1)
    monkeypatch.setattr(measuring, "_FIRST_TOKENS", 2)
    monkeypatch.setattr(measuring, "_POLL_S", 0.005)
    monkeypatch.setattr(measuring, "_STEADY_S", 0.05)


@pytest.mark.parametrize(("slots", "most", "found"), [(3, 8, 3), (8, 3, 3), (1, 1, 1)])
def test_max_num_seqs_is_what_runs_at_once(slots, most, found, few):
    async def run() -> int:
        return await find_max_num_seqs(FakeVllm(slots), most)

    assert asyncio.run(run()) == found


def test_every_prompt_and_every_load_is_measured(few):
    measured = measure_fake(FakeVllm(slots=2))
    prompts = [m.prompt_tokens for m in measured.measurements if isinstance(m, FirstToken)]
    assert tuple(prompts) == prompt_sizes(FAKE)
    loads = [m.sequences for m in measured.measurements if isinstance(m, Decode)]
    assert loads == [point.sequences for point in decode_points(FAKE, 2)]


def test_every_step_is_shown(few):
    steps = Steps()
    measure_fake(FakeVllm(slots=2), steps=steps)
    assert steps.said[0] == "Finding max_num_seqs"
    assert re.fullmatch(r"Measuring, about \d+ s", steps.said[1])
    assert steps.done == steps.total > 0


def test_an_iteration_takes_the_time_between_the_tokens_of_a_probe(few):
    measured = measure_fake(FakeVllm(slots=2))
    times = [m.measured_ms for m in measured.measurements if isinstance(m, Decode)]
    assert all(time_ms >= 1.0 for time_ms in times)  # the fake's iteration


def test_the_kv_entries_are_those_of_prompts_and_answers(few):
    measured = measure_fake(FakeVllm(slots=1), most=1)
    alone = [m for m in measured.measurements if isinstance(m, Decode)]
    for decode, point in zip(alone, decode_points(FAKE, 1), strict=True):
        # Half of the probe's own tokens, on average, beside its prompt.
        assert decode.kv_tokens == point.prompt_tokens + point.tokens / 2


def decodes(measured: Measured) -> list[Decode]:
    return [m for m in measured.measurements if isinstance(m, Decode)]


def prefills(measured: Measured) -> list[FirstToken]:
    return [m for m in measured.measurements if isinstance(m, FirstToken)]


def test_a_load_at_which_the_server_always_preempts_is_left_out_with_the_reason(few):
    measured = measure_fake(FakeVllm(slots=2, preempts=True))
    assert len(prefills(measured)) == len(prompt_sizes(FAKE))
    assert decodes(measured) == []
    points = decode_points(FAKE, 2)
    assert len(measured.missing) == len(points)
    assert measured.missing[0] == (
        "the server preempted at 1 sequences of 16 prompt tokens; it must have no other traffic"
    )


def beside_a_probe(length: Length) -> bool:
    return any(
        length == Length(point.prompt_tokens, point.beside) for point in decode_points(FAKE, 2)
    )


def test_loads_whose_answers_always_end_early_cost_no_other_measurement(few):
    measured = measure_fake(FakeVllm(slots=2, short=beside_a_probe))
    assert [decode.sequences for decode in decodes(measured)] == [
        point.sequences for point in decode_points(FAKE, 2) if point.sequences == 1
    ]
    assert all("answers ended before the probe at 2 seq" in text for text in measured.missing)
    assert measured.missing


def test_a_probe_that_fails_is_repeated_with_fewer_tokens(few, monkeypatch):
    monkeypatch.setattr(measuring, "_ROUNDS", 2)
    vllm = FakeVllm(slots=1, short=FirstOf(lambda length: length.output == 48))
    measured = measure_fake(vllm, most=1)
    assert measured.missing == ()
    assert Length(16, 24) in vllm.lengths


class FirstOf:
    """True for the first length of a kind, then False."""

    def __init__(self, kind) -> None:
        self._kind, self._met = kind, False

    def __call__(self, length: Length) -> bool:
        if self._met or not self._kind(length):
            return False
        self._met = True
        return True


def test_a_load_that_was_never_measured_is_given_up(few, monkeypatch):
    monkeypatch.setattr(measuring, "_ROUNDS", 9)
    vllm = FakeVllm(slots=1, short=lambda length: length.output in (48, 24))
    measured = measure_fake(vllm, most=1)
    assert vllm.lengths.count(Length(16, 48)) == vllm.lengths.count(Length(16, 24)) == 1
    assert "all tokens of the probe arrived at once at 1 sequences" in measured.missing[0]


def test_a_server_that_dies_costs_nothing_that_was_measured(few):
    dead = VllmError("http://h: the connection failed")
    measured = measure_fake(FakeVllm(slots=2, fails=dead, after=8))
    assert prefills(measured)
    assert measured.missing == ("the measurement ended early: http://h: the connection failed",)


def test_a_fast_server_is_still_running_when_it_is_looked_at(few, monkeypatch):
    monkeypatch.setattr(measuring, "_POLL_S", 0.1)  # the fake needs 16 ms for 16 tokens

    async def run() -> int:
        return await find_max_num_seqs(FakeVllm(3), 3)

    assert asyncio.run(run()) == 3


def test_a_load_that_does_not_start_is_left_out(few, monkeypatch):
    monkeypatch.setattr(measuring, "_START_S", 0.05)
    monkeypatch.setattr(measuring, "find_max_num_seqs", claim_three)
    # Two sequences beside the probe find one slot.
    measured = measure_fake(FakeVllm(slots=1), most=3)
    assert "not all sequences started within 0.05 s at 3 sequences" in " ".join(measured.missing)


async def claim_three(_vllm: FakeVllm, _most: int) -> int:
    return 3


def test_a_server_that_fails_says_why(few):
    with pytest.raises(VllmError, match="out of memory"):
        measure_fake(FakeVllm(fails=VllmError("out of memory")))
