"""The engine model against vLLM's rules, written out one token at a time."""

import csv
import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.simulator.engine import (
    A100_80GB,
    Engine,
    EngineConfig,
    Event,
    EventKind,
    NeverFitsError,
    Profile,
    Sequence,
)
from tests.support.paths import SHARED
from tests.support.reference_scheduler import Reference

TRACE = SHARED / "data" / "azure_llm_2023_conv.csv"
FAST = Profile(weights_ms=8.0, sequence_ms=0.65, chunk_tokens=4)
LONG = Profile(
    weights_ms=8.0,
    sequence_ms=0.65,
    chunk_tokens=4,
    prefill_token_ms=0.1,
    prefill_pair_ms=0.01,
    kv_token_ms=0.3,
)

# What a caller does next: submit (prompt tokens, output tokens), abort the n-th, or wait (ns).
Action = tuple[int, int] | int | float


def config(
    blocks: int = 64,
    *,
    seqs: int = 4,
    batch: int = 8,
    window: int = 64,
    size: int = 4,
    most: int = 0,
) -> EngineConfig:
    return EngineConfig(
        max_model_len=window,
        max_num_seqs=seqs,
        max_num_batched_tokens=batch,
        num_blocks=blocks,
        block_size=size,
        long_prefill_token_threshold=min(most, window),
    )


def play(engine: Engine | Reference, actions: list[Action]) -> list[tuple[int, EventKind, int]]:
    """Every event as (time, kind, number of the sequence), and every rejection and abort."""
    sequences, log = list[Sequence](), list[tuple[int, EventKind, int]]()

    def note(events: list[Event]) -> None:
        log.extend((event.at_ns, event.kind, sequences.index(event.sequence)) for event in events)

    for action in actions:
        match action:
            case (prompt, output):
                sequences.append(Sequence(prompt, output))
                try:
                    engine.submit(sequences[-1])
                except NeverFitsError:
                    log.append((engine.now_ns, EventKind.FINISHED, -len(sequences)))
            case float() as wait_ms:
                note(engine.advance(engine.now_ns + int(wait_ms * 1e6)))
            case int() as number if sequences:
                aborted = engine.abort(sequences[number % len(sequences)])
                log.append((engine.now_ns, EventKind.PREEMPTED, -2 - aborted))
    note(engine.advance(10**15))
    return log


def stepped(engine: Engine) -> list[Event]:
    """Everything that there is to run, one iteration at a time."""
    events = list[Event]()
    while engine.running or engine.waiting:
        iteration = engine.advance(engine.now_ns + 1)
        events.extend(iteration)
    return events


def submit_all(engine: Engine, lengths: list[tuple[int, int]]) -> list[Sequence]:
    sequences = [Sequence(prompt, output) for prompt, output in lengths]
    for sequence in sequences:
        engine.submit(sequence)
    return sequences


def plain(events: list[Event], sequences: list[Sequence]) -> list[tuple[int, EventKind, int]]:
    return [(event.at_ns, event.kind, sequences.index(event.sequence)) for event in events]


SHORT = st.tuples(st.integers(1, 40), st.integers(1, 40))
CONFIGS = st.builds(
    lambda blocks, seqs, more, window, size, most: config(
        blocks, seqs=seqs, batch=seqs + more, window=window, size=size, most=most
    ),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(0, 20),
    st.integers(2, 64),
    st.integers(1, 8),
    st.just(0) | st.integers(1, 16),
)
ACTIONS = st.lists(SHORT | st.integers(0, 50) | st.floats(0, 200, exclude_max=True), max_size=40)
# Every one of these sequences fits on its own; no two of the longest fit together.
TIGHT = config(20, seqs=6, batch=10, window=80, size=4)
LENGTHS = st.lists(SHORT, min_size=1, max_size=20)


@settings(max_examples=400)
@given(CONFIGS, ACTIONS)
def test_the_events_are_those_of_the_transcribed_scheduler(settings_, actions):
    assert play(Engine(settings_, FAST), actions) == play(Reference(settings_, FAST), actions)


@settings(max_examples=400)
@given(CONFIGS, ACTIONS)
def test_so_they_are_where_attention_takes_time(settings_, actions):
    assert play(Engine(settings_, LONG), actions) == play(Reference(settings_, LONG), actions)


@given(CONFIGS, ACTIONS)
def test_time_never_goes_back(settings_, actions):
    times = [at_ns for at_ns, _, _ in play(Engine(settings_, FAST), actions)]
    assert times == sorted(times)


@given(LENGTHS)
def test_jumping_gives_the_events_of_stepping(lengths):
    jumping, stepping = Engine(TIGHT, FAST), Engine(TIGHT, FAST)
    first, second = submit_all(jumping, lengths), submit_all(stepping, lengths)
    assert plain(jumping.advance(), first) == plain(stepped(stepping), second)


@given(LENGTHS)
def test_every_submitted_sequence_ends_exactly_once(lengths):
    engine = Engine(TIGHT, FAST)
    sequences = submit_all(engine, lengths)
    ended = [event.sequence for event in engine.advance() if event.kind is EventKind.FINISHED]
    assert len(ended) == len(sequences)
    assert set(ended) == set(sequences)


@given(LENGTHS)
def test_every_sequence_gets_all_its_tokens(lengths):
    engine = Engine(TIGHT, FAST)
    sequences = submit_all(engine, lengths)
    engine.advance()
    assert [engine.generated(sequence) for sequence in sequences] == [out for _, out in lengths]


@given(CONFIGS, ACTIONS)
def test_blocks_are_never_negative_and_never_leak(settings_, actions):
    engine = Engine(settings_, FAST)
    play(engine, actions)
    assert engine.free_blocks == settings_.num_blocks
    assert (engine.running, engine.waiting, engine.usage) == (0, 0, 0.0)


@given(LENGTHS)
def test_free_blocks_are_never_negative(lengths):
    engine = Engine(TIGHT, FAST)
    submit_all(engine, lengths)
    while engine.running or engine.waiting:
        engine.advance(engine.now_ns + 1)
        assert 0 <= engine.free_blocks <= TIGHT.num_blocks


@given(LENGTHS, st.integers(0, 60))
def test_an_abort_frees_everything(lengths, iterations):
    engine = Engine(TIGHT, FAST)
    sequences = submit_all(engine, lengths)
    for _ in range(iterations):
        engine.advance(engine.now_ns + 1)
    for sequence in sequences:
        engine.abort(sequence)
    assert (engine.free_blocks, engine.running, engine.waiting) == (TIGHT.num_blocks, 0, 0)
    assert engine.advance() == []


@given(LENGTHS)
def test_the_oldest_gains_a_token_in_every_iteration(lengths):
    # What no livelock means: an iteration either computes a chunk of the oldest or samples for it.
    engine = Engine(TIGHT, FAST)
    for oldest in submit_all(engine, lengths):
        iterations = 0
        while oldest not in [e.sequence for e in engine.advance(engine.now_ns + 1) if is_end(e)]:
            iterations += 1
            if engine.generated(oldest) == oldest.output_tokens:
                break
        assert iterations <= oldest.prompt_tokens + oldest.output_tokens


def is_end(event: Event) -> bool:
    return event.kind is EventKind.FINISHED


def test_two_that_do_not_fit_together_both_end():
    engine = Engine(config(16, window=64), FAST)  # 64 tokens; each ends with 60
    sequences = submit_all(engine, [(30, 31), (30, 31)])
    events = engine.advance()
    assert engine.preemptions >= 1
    assert [event.sequence for event in events if is_end(event)] == sequences


def test_the_last_admitted_is_preempted():
    engine = Engine(config(6, window=24), FAST)
    sequences = submit_all(engine, [(8, 12), (8, 12)])
    assert {e.sequence for e in engine.advance() if e.kind is EventKind.PREEMPTED} == {sequences[1]}


@given(LENGTHS)
def test_the_last_preempted_is_the_first_admitted(lengths):
    engine = Engine(TIGHT, FAST)
    submit_all(engine, lengths)
    changes = [e for e in engine.advance() if e.kind in (EventKind.PREEMPTED, EventKind.ADMITTED)]
    for one, other in itertools.pairwise(changes):
        if (one.kind, other.kind) == (EventKind.PREEMPTED, EventKind.ADMITTED):
            assert one.sequence is other.sequence


def test_what_was_generated_is_prefilled_again():
    # 4 blocks of 4: both prompts fit, the sixth token of the older does not.
    engine = Engine(config(4, window=16, batch=4), FAST)
    _, young = submit_all(engine, [(4, 9), (4, 9)])
    events = [event for event in engine.advance() if event.sequence is young]
    again = [event.at_ns for event in events if event.kind is EventKind.ADMITTED][-1]
    (end,) = [event.at_ns for event in events if is_end(event)]
    assert events[2].kind is EventKind.PREEMPTED
    assert end > again


def test_a_preempted_sequence_has_one_first_token():
    engine = Engine(config(4, window=16, batch=4), FAST)
    submit_all(engine, [(4, 9), (4, 9)])
    kinds = [event.kind for event in engine.advance()]
    assert kinds.count(EventKind.FIRST_TOKEN) == 2
    assert kinds.count(EventKind.PREEMPTED) == engine.preemptions > 0


def test_slots_bound_the_running():
    engine = Engine(config(seqs=2), FAST)
    submit_all(engine, [(1, 5)] * 5)
    engine.advance(1)
    assert (engine.running, engine.waiting) == (2, 3)


def test_a_prompt_is_prefilled_in_chunks_of_the_budget():
    engine = Engine(config(batch=8), FAST)
    submit_all(engine, [(20, 1)])
    (*_, end) = engine.advance()
    # Chunks of 8, 8 and 4 tokens read the weights twice, twice and once.
    assert end.at_ns == 2 * FAST.iteration_ns(1, 8) + FAST.iteration_ns(1, 4)


@pytest.mark.parametrize(("most", "first"), [(0, [1, 0]), (4, [0, 1])])
def test_a_short_prompt_need_not_wait_for_a_long_one(most, first):
    engine = Engine(config(batch=8, most=most), FAST)
    long, short = submit_all(engine, [(24, 1), (3, 1)])
    ended = [event.sequence for event in engine.advance() if is_end(event)]
    # Without a limit the long prompt fills three iterations; with it the short one joins the first.
    assert [[short, long].index(sequence) for sequence in ended] == first


def test_a_long_prompt_alone_is_not_limited():
    limited, free = Engine(config(batch=8, most=2), FAST), Engine(config(batch=8), FAST)
    for engine in (limited, free):
        submit_all(engine, [(20, 5)])
    assert limited.advance()[-1].at_ns == free.advance()[-1].at_ns


def test_a_decode_costs_the_weights_and_each_sequence():
    profile = Profile(weights_ms=8.0, sequence_ms=0.5, chunk_tokens=512, speed=2.0)
    assert profile.iteration_ns(4, 0) == 5_000_000


def test_prefill_costs_the_weights_again_for_every_further_chunk():
    assert A100_80GB.iteration_ns(1, 512) == A100_80GB.iteration_ns(1, 0) == 8_650_000
    assert A100_80GB.iteration_ns(1, 513) == 16_650_000


def test_the_window_cuts_the_answer():
    engine = Engine(config(window=16), FAST)
    (sequence,) = submit_all(engine, [(10, 100)])
    engine.advance()
    assert sequence.output_tokens == engine.generated(sequence) == 6


@pytest.mark.parametrize(("blocks", "lengths"), [(64, (64, 1)), (4, (10, 8))])
def test_what_never_fits_is_rejected(blocks, lengths):
    engine = Engine(config(blocks), FAST)
    with pytest.raises(NeverFitsError):
        engine.submit(Sequence(*lengths))
    assert engine.waiting == 0


def test_the_token_sampled_last_needs_no_block():
    engine = Engine(config(4), FAST)  # 16 tokens
    submit_all(engine, [(10, 7)])
    assert is_end(engine.advance()[-1])


def test_a_sequence_is_submitted_once():
    engine = Engine(config(), FAST)
    (sequence,) = submit_all(engine, [(1, 1)])
    with pytest.raises(ValueError, match="already submitted"):
        engine.submit(sequence)


def test_an_idle_engine_follows_the_time_of_its_caller():
    engine = Engine(config(), FAST)
    engine.advance(5_000)
    submit_all(engine, [(1, 1)])
    assert engine.advance()[0].at_ns == 5_000


def test_an_iteration_under_way_ends_after_the_time_asked_for():
    engine = Engine(config(), FAST)
    submit_all(engine, [(1, 1)])
    (_, _, end) = engine.advance(1)
    assert end.at_ns == engine.now_ns == FAST.iteration_ns(1, 1)


def test_what_has_ended_cannot_be_aborted():
    engine = Engine(config(), FAST)
    (sequence,) = submit_all(engine, [(1, 1)])
    engine.advance()
    assert not engine.abort(sequence)


@pytest.mark.parametrize("lengths", [(0, 1), (1, 0)])
def test_a_sequence_has_tokens(lengths):
    with pytest.raises(ValueError, match="at least one"):
        Sequence(*lengths)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: config(0), "at least 1"),
        (lambda: config(seqs=9, batch=8), "max_num_batched_tokens"),
        (lambda: replace(config(window=8), long_prefill_token_threshold=9), "max_model_len"),
        (lambda: Profile(weights_ms=1, sequence_ms=1, chunk_tokens=0), "chunk_tokens"),
        (lambda: Profile(weights_ms=1, sequence_ms=1, chunk_tokens=1, speed=0), "speed"),
    ],
)
def test_settings_that_cannot_work_are_refused(make: Callable[[], object], message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.skipif(not TRACE.exists(), reason=f"no {TRACE}")
def test_a_traced_hour_ends_whole():
    pool = EngineConfig(
        max_model_len=16384, max_num_seqs=128, max_num_batched_tokens=512, num_blocks=8192
    )
    engine = Engine(pool, A100_80GB)
    with TRACE.open() as file:
        rows = list(itertools.islice(csv.DictReader(file), 3000))
    submit_all(engine, [(int(r["ContextTokens"]), int(r["GeneratedTokens"])) for r in rows])
    assert sum(map(is_end, engine.advance())) == len(rows)
    assert engine.free_blocks == pool.num_blocks
