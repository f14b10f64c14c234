"""The demo's options, and its traffic through a simulated pool in place of a whole stack."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import aiohttp
import pytest
from rich.console import Console

from extproc.config.errors import UserError
from extproc.local import demo
from extproc.local.children import Log
from extproc.local.client import Ending
from extproc.local.demo import DemoOptions, read_log_rows, run_demo
from extproc.local.fleet import StackPool
from extproc.local.record import DemoRecord
from extproc.local.stack import StackOptions
from extproc.local.traffic import Source
from extproc.progress import showing
from tests.support.pool_client import MODEL, serving, settings

SOURCE = Source("english", ("One fish. ", "Two fish. ", "Red fish, blue fish.\n"))

POOL = settings(window=16_384, blocks=4096)


def played(**fields: object) -> DemoRecord:
    """Send traffic through one simulated pool, which stands for Envoy and both pools."""
    options = DemoOptions(requests=25, rate=500.0, seed=3, **fields)

    async def run() -> DemoRecord:
        async with serving(POOL) as pool, aiohttp.ClientSession() as session:
            url = str(pool.make_url("")).rstrip("/")
            pools = tuple(
                StackPool(name, url, MODEL, window, simulated=True)
                for name, window in (("short", 2048), ("long", 16_384))
            )
            with showing(Console(quiet=True)) as show:
                one = demo.DemoRun(options, session, pools, url, url, show)
                return await one.play((SOURCE,))

    return asyncio.run(run())


@pytest.fixture(scope="module")
def record() -> DemoRecord:
    return played()


def test_every_request_is_answered_in_the_order_of_the_traffic(record):
    assert [a.item.request_id for a in record.answers] == [f"dualpool-3-{n:05d}" for n in range(25)]
    assert all(answer.ending is Ending.COMPLETE for answer in record.answers)
    assert record.elapsed_s > 0


def test_every_prompt_is_counted_by_usage_or_by_the_pool(record):
    assert all(record.largest_prompt_tokens(answer) for answer in record.answers)
    missing = {a.item.request_id for a in record.answers if not a.prompt_tokens}
    batches = {a.item.request_id for a in record.answers if a.item.prompts > 1}
    assert record.prompt_tokens.keys() == missing | batches
    assert missing


def test_a_text_alone_has_fewer_tokens_than_its_prompt(record):
    # Tool definitions are counted with spaces, and rendered without.
    for answer in (a for a in record.answers if b'"tools"' not in a.item.body):
        alone = record.text_tokens[answer.item.request_id]
        assert 0 < alone <= record.all_prompt_tokens(answer) + answer.item.prompts


def test_preemptions_are_those_of_the_run(record):
    assert record.preemptions == {"short": 0, "long": 0}


def test_a_service_without_a_state_has_learnt_nothing(record):
    assert record.learnt == {}


def test_a_running_stack_shows_no_preemptions():
    assert played(compose="http://127.0.0.1:10000").preemptions == {}


@pytest.fixture
def log() -> Iterator[Log]:
    with closing(Log()) as file:
        yield file


def rows(log: Log, wanted: set[str]) -> set[str]:
    gateway = SimpleNamespace(envoy=SimpleNamespace(output=log))
    return set(asyncio.run(read_log_rows(gateway, wanted)))


def test_only_the_rows_of_the_traffic_are_kept(log):
    for name in ("r0", "other", "r1"):
        log.write(json.dumps({"request_id": name}) + "\n")
    assert rows(log, {"r0", "r1"}) == {"r0", "r1"}


def test_a_row_that_never_comes_is_not_waited_for_for_ever(monkeypatch, log):
    monkeypatch.setattr(demo, "_LOG_TIMEOUT_S", 0.2)
    log.write('{"request_id": "r0"}\n')
    assert rows(log, {"r0", "r1"}) == {"r0"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"requests": 0}, "--requests: 0 is not allowed: must be a whole number from 1"),
        ({"rate": 0.0}, "--rate: 0.0 is not allowed: must be above 0"),
        ({"concurrency": 0}, "--concurrency: 0 is not allowed: must be a whole number from 1"),
        ({"exceeding": 1.5}, "--exceeding: 1.5 is not allowed: must be between 0 and 1"),
        ({"compose": "h:1/api"}, "--compose: 'h:1/api' is not http://HOST:PORT"),
    ],
)
def test_a_bad_option_is_refused(fields, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        run_demo(DemoOptions(**fields))
    assert caught.value.exit_code == 2


def test_a_running_stack_and_pools_are_not_asked_for_at_once():
    stack = StackOptions(pools=("http://h:1",))
    with pytest.raises(UserError, match="--compose: a running stack has its own pools"):
        run_demo(DemoOptions(stack=stack, compose="http://h:2"))


def test_a_running_stack_needs_no_keeping():
    with pytest.raises(UserError, match="--compose: a running stack runs on anyway; remove --keep"):
        run_demo(DemoOptions(compose="http://h:2", keep=True))


def test_a_folder_without_texts_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no text files"):
        run_demo(DemoOptions(texts=tmp_path))
