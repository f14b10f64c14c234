"""The benchmark that compares what the service counts with the truth, on a few requests."""

import argparse
import asyncio

import pytest

from benchmarks import live_vllm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_no_request_is_lost_or_altered_and_streams_are_asked_for_their_usage(vllm_urls):
    options = argparse.Namespace(
        pools=",".join(vllm_urls), requests=60, first=30, clients=8, runs=1, seed=0
    )
    results = asyncio.run(live_vllm.run_all(options))
    assert all(result.is_faultless for result in results)
    assert any(result.counted.asked for result in results)
    assert results[-1].counted.judged
