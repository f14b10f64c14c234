"""The prefix cache of the engine model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.simulator.engine import A100_80GB, Engine, EngineConfig, Event, EventKind, Sequence
from extproc.simulator.engine.prefix import PART_TOKENS, PrefixCache

BLOCK = 128  # tokens; a part has four blocks


def engine(blocks: int = 32, *, cached: bool = True) -> Engine:
    config = EngineConfig(
        max_model_len=PART_TOKENS * 8,
        max_num_seqs=4,
        max_num_batched_tokens=700,
        num_blocks=blocks,
        block_size=BLOCK,
        enable_prefix_caching=cached,
    )
    return Engine(config, A100_80GB)


def answer(one: Engine, prompt: int, prefix: tuple[int, ...]) -> Sequence:
    sequence = Sequence(prompt, 5, prefix)
    one.submit(sequence)
    one.advance()
    return sequence


@st.composite
def prompts(draw: st.DrawFn) -> tuple[int, int, tuple[int, ...]]:
    """Prompt and output tokens, and ids: equal ones stand for equal beginnings."""
    path = draw(st.lists(st.integers(0, 1), max_size=4))
    ids = tuple(int("1" + "".join(map(str, path[: n + 1])), 2) for n in range(len(path)))
    return (
        len(ids) * PART_TOKENS + draw(st.integers(1, PART_TOKENS)),
        draw(st.integers(1, 300)),
        ids,
    )


PROMPTS = st.lists(st.tuples(prompts(), st.integers(0, 20)), max_size=25)


def test_a_cached_beginning_is_not_computed_again():
    one = engine()
    assert answer(one, 1100, (1, 2)).reused == 0
    assert answer(one, 1100, (1, 3)).reused == PART_TOKENS


def test_a_cached_prompt_still_computes_its_last_token():
    one = engine()
    answer(one, 2 * PART_TOKENS, (1, 2))
    assert answer(one, 2 * PART_TOKENS, (1, 2)).reused == PART_TOKENS


def test_a_cached_prompt_answers_sooner():
    one = engine()
    starts = [one.now_ns]
    for _ in range(2):
        answer(one, 2000, (1, 2, 3))
        starts.append(one.now_ns)
    assert starts[2] - starts[1] < starts[1] - starts[0]


def test_running_sequences_share_the_blocks_of_their_beginning():
    one = engine(blocks=19)  # 16 blocks for a prompt of 2,000 tokens, and 4 for what differs
    for _ in range(2):
        one.submit(Sequence(1900, 100, (1, 2, 3)))
    one.advance(one.now_ns + 60_000_000)
    assert one.running == 2


def test_the_least_recently_used_goes_first():
    one = engine(blocks=20)
    for part in (1, 2, 1, 3, 4, 5):  # each needs 5 blocks, of which 4 stay
        answer(one, 520, (part,))
    assert answer(one, 520, (1,)).reused == PART_TOKENS
    assert answer(one, 520, (2,)).reused == 0


@given(PROMPTS)
def test_blocks_are_never_negative_and_never_leak(wanted):
    one = engine(blocks=32)
    for (prompt, output, prefix), wait in wanted:
        one.submit(Sequence(prompt, output, prefix))
        for _ in range(wait):
            one.advance(one.now_ns + 1)
            assert 0 <= one.free_blocks <= one.config.num_blocks
    one.advance()
    assert one.free_blocks == one.config.num_blocks


@given(PROMPTS)
def test_every_sequence_ends_once(wanted):
    one = engine(blocks=32)
    sequences = [Sequence(*lengths) for lengths, _ in wanted]
    for sequence in sequences:
        one.submit(sequence)
    ended = [event.sequence for event in one.advance() if event.kind is EventKind.FINISHED]
    assert len(ended) == len(set(ended)) == len(sequences)


@given(PROMPTS)
def test_prompts_that_share_nothing_are_scheduled_as_without_a_cache(wanted):
    assert played(engine(), wanted) == played(engine(cached=False), wanted)


def played(one: Engine, wanted: list[tuple[tuple[int, int, tuple[int, ...]], int]]) -> list[object]:
    """Submit all, each with parts of its own; a prompt that was preempted would reuse them."""
    events = list[Event]()
    sequences = list[Sequence]()
    for number, ((prompt, output, prefix), _) in enumerate(wanted):
        own = tuple(range(100 * number, 100 * number + len(prefix)))
        sequences.append(Sequence(prompt, min(output, 5), own))
        one.submit(sequences[-1])
        events += one.advance()
    return [(e.at_ns, e.kind, sequences.index(e.sequence)) for e in events]


def test_a_part_is_a_whole_number_of_blocks():
    with pytest.raises(ValueError, match="divides 512"):
        PrefixCache(48)
