"""Asynchronous scheduling: an iteration is decided while the one before runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.simulator.engine import Engine, EngineConfig, EventKind, Profile, Sequence

MS = 1_000_000
PACE = Profile(weights_ms=10.0, sequence_ms=0.0, chunk_tokens=1 << 20)
LAUNCHED = Profile(weights_ms=10.0, sequence_ms=0.0, chunk_tokens=1 << 20, launch_ms=25.0)


def engine(
    pace: Profile = PACE,
    *,
    seqs: int = 4,
    blocks: int = 64,
    asynchronous: bool = True,
    most: int = 0,
):
    return Engine(
        EngineConfig(
            max_model_len=64,
            max_num_seqs=seqs,
            max_num_batched_tokens=8,
            num_blocks=blocks,
            block_size=4,
            async_scheduling=asynchronous,
            long_prefill_token_threshold=most,
        ),
        pace,
    )


def times(events, kind: EventKind) -> list[float]:
    return [event.at_ns / MS for event in events if event.kind is kind]


def served(engine: Engine, *arrivals: tuple[float, int, int]):
    events = []
    for at_ms, prompt, output in arrivals:
        events += engine.advance(int(at_ms * MS))
        engine.submit(Sequence(prompt, output))
    return [*events, *engine.advance()]


@pytest.mark.parametrize(("asynchronous", "first_ms"), [(False, [10, 30]), (True, [10, 40])])
def test_an_arrival_during_an_iteration_is_seen_by_the_one_after_next(asynchronous, first_ms):
    # The second arrives during the second iteration, from 10 to 20 ms.
    events = served(engine(asynchronous=asynchronous), (0, 1, 9), (12, 1, 1))
    assert times(events, EventKind.FIRST_TOKEN) == first_ms


@pytest.mark.parametrize(("asynchronous", "admitted_ms"), [(False, 20), (True, 30)])
def test_a_slot_that_falls_free_is_seen_by_the_iteration_after_next(asynchronous, admitted_ms):
    waits = served(engine(seqs=2, asynchronous=asynchronous), (0, 1, 9), (0, 1, 2), (0, 1, 1))
    assert times(waits, EventKind.ADMITTED) == [0, 0, admitted_ms]


def test_a_slot_that_falls_free_in_an_empty_engine_is_seen_at_once():
    events = served(engine(seqs=1), (0, 1, 1), (0, 1, 1))
    assert times(events, EventKind.FINISHED) == [10, 20]


def test_blocks_that_fall_free_are_seen_by_the_iteration_after_next():
    # Four blocks: 3 of them are those of the second sequence, which ends at 20 ms.
    events = served(engine(blocks=4), (0, 1, 3), (0, 7, 2), (0, 5, 1))
    assert times(events, EventKind.ADMITTED) == [0, 0, 30]


def test_a_first_token_takes_at_least_the_launch_of_its_prefill():
    assert times(served(engine(LAUNCHED), (0, 1, 2)), EventKind.FIRST_TOKEN) == [25]


def test_tokens_are_read_once_the_next_prefill_is_launched():
    # 16 tokens in two iterations of 8: the first sequence's token is ready at 25 ms, but the
    # scheduler is launching the second iteration until 50 ms.
    events = served(engine(LAUNCHED), (0, 8, 1), (0, 8, 1))
    assert times(events, EventKind.FIRST_TOKEN) == [50, 50]


def test_an_arrival_during_a_launch_is_seen_by_the_next_iteration():
    events = served(engine(LAUNCHED), (0, 1, 9), (20, 1, 1))
    assert times(events, EventKind.ADMITTED) == [0, 25]


WORK = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=30
)


@given(
    WORK,
    st.sampled_from([PACE, LAUNCHED]),
    st.integers(1, 4),
    st.integers(16, 40),
    st.integers(0, 8),
)
def test_every_sequence_finishes_and_every_block_falls_free(work, pace, seqs, blocks, most):
    one = engine(pace, seqs=seqs, blocks=blocks, most=most)
    events = served(one, *sorted(work))
    assert len(times(events, EventKind.FINISHED)) == len(work)
    assert (one.free_blocks, one.running, one.waiting) == (blocks, 0, 0)


@given(WORK, st.data())
def test_an_abort_leaves_no_block_behind(work, data):
    one = engine(seqs=2, blocks=20, most=data.draw(st.integers(0, 8)))
    sent = []
    for at_ms, prompt, output in sorted(work):
        one.advance(at_ms * MS)
        sent.append(Sequence(prompt, output))
        one.submit(sent[-1])
        if data.draw(st.booleans()):
            one.abort(data.draw(st.sampled_from(sent)))
    one.advance()
    assert (one.free_blocks, one.running, one.waiting) == (20, 0, 0)
