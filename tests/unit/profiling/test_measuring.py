"""What is measured of a server, and where."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from extproc.profiling.fitting import Decode, FirstToken, fit
from extproc.profiling.measuring import Measured, decode_points, measure, prompt_sizes
from extproc.profiling.vllm import Facts, connect, new_session
from extproc.progress import showing
from extproc.simulator.engine.instance import Profile
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
        longest = point.prompt_tokens + 3 * point.tokens  # what runs beside the probe
        assert longest <= facts.max_model_len
        blocks = -(-longest // facts.block_size)
        assert point.sequences <= seqs
        assert point.sequences * blocks <= facts.num_blocks


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
