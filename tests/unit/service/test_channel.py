"""The lines between the supervisor and a worker."""

import asyncio
import contextlib
import socket

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from extproc.budget.values import Asked, Measure, Observation, Outcome
from extproc.config.settings import MAX_POOLS, MAX_ROWS
from extproc.page.decisions import Decisions, Shown
from extproc.page.digest import Digest, Reporter
from extproc.routing.load.pool_load import PoolLoad
from extproc.routing.pools import Reason, Verdict
from extproc.service import channel
from extproc.service.channel import (
    DIGEST,
    EMPTY,
    LINE_BYTES,
    LOADS,
    REPLICAS,
    UNSENT_BYTES,
    Order,
    Outbox,
    decode,
    decode_digest,
    decode_loads,
    decode_replicas,
    encode,
    encode_digest,
    encode_loads,
    encode_replicas,
    read_line,
)
from extproc.stream.metrics import Metrics

ASKED = Asked("modèle", "prose", Measure(2800, 3, (1.0, 2.0), 0.5), None)
OBSERVATION = Observation(ASKED, Outcome.CUT, 8192, 700, 20)


def most_pools():
    return [f"{number:063}" for number in range(MAX_ROWS * MAX_POOLS)]


def test_the_load_of_as_many_pools_as_there_may_be_is_sent():
    load = PoolLoad(*[2**20] * 3, *[2**20 / 3] * 8)
    line = encode_loads(dict.fromkeys(most_pools(), load))
    assert sent(line) == line


def test_the_digest_of_as_many_pools_as_there_may_be_is_sent():
    metrics, decisions = Metrics(CollectorRegistry()), Decisions(clock=lambda: -1.0)
    counted = metrics.verdicts, metrics.misroutes, metrics.retries
    for pool in most_pools():
        for metric in counted:
            for label in Verdict:  # as many as the others have, or more
                metric.count(pool, label.value, times=2**40)
        for reason in Reason:
            decisions.note(pool, reason, dict)
    line = encode_digest(Reporter(decisions, counted).digest())
    assert sent(line) == line


def test_an_observation_is_read_as_it_was_written():
    assert decode(encode(OBSERVATION)) == OBSERVATION


def test_an_order_is_one_line():
    line = encode(Order('{"a":\n1}', "127.0.0.1:1", ""))
    assert line.index(b"\n") == len(line) - 1


def test_the_number_of_replicas_is_read_as_it_was_written():
    line = encode_replicas(3)
    assert line.startswith(REPLICAS)
    assert decode_replicas(line) == 3


def test_loads_are_read_as_they_were_written():
    loads = {"short": PoolLoad(servers=2, known=1, running=3.5)}
    line = encode_loads(loads)
    assert line.startswith(LOADS)
    assert decode_loads(line) == loads


def test_a_digest_is_read_as_it_was_written():
    shown = Shown(1.0, "short", "fits", "m\n", "prose/m", "prior", 10, 5, 20, 35, 30, 0)
    digest = Digest({"a b": 1.0}, [shown])
    line = encode_digest(digest)
    assert (line.index(b"\n"), line[:1]) == (len(line) - 1, DIGEST)
    assert decode_digest(line) == digest


@pytest.mark.parametrize(
    "line", [b"x\n", b"\xff\n", b"{}\n", b'{"asked": "\xff"}\n', encode(OBSERVATION)[:-9] + b"\n"]
)
def test_what_is_no_observation_is_a_decode_error(line):
    with pytest.raises(msgspec.DecodeError):
        decode(line)


def sent(*lines):
    """Send lines; return what the other end gets before the channel closes."""

    async def main():
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        outbox = Outbox(writer)
        for line in lines:
            outbox.send(line)
        reader, other = await asyncio.open_connection(sock=theirs)
        writer.close()
        got = await reader.read()
        other.close()
        await other.wait_closed()
        return got

    return asyncio.run(main())


def test_lines_arrive_in_order():
    assert sent(b"a\n", EMPTY, b"b\n") == b"a\n\nb\n"


def test_a_line_that_the_reader_would_refuse_is_not_sent():
    name = "m" * LINE_BYTES
    long = encode(replace(OBSERVATION, asked=replace(ASKED, model=name)))
    assert sent(long, b"a\n") == b"a\n"


def test_a_slow_reader_loses_lines_and_never_holds_up_the_writer():
    line = b"x" * 65_535 + b"\n"
    got = sent(*[line] * (3 * UNSENT_BYTES // len(line)))
    assert UNSENT_BYTES <= len(got) < 2 * UNSENT_BYTES
    assert len(got) % len(line) == 0


def received(scenario):
    """Run a coroutine function of an outbox and of what returns the bytes that have come so far."""

    async def main():
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        _, writer = await asyncio.open_connection(sock=ours)

        async def come():
            await asyncio.sleep(0.01)
            with contextlib.suppress(BlockingIOError):
                return theirs.recv(1 << 20)
            return b""

        with theirs:
            await scenario(Outbox(writer), come)
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


def test_an_observation_leaves_at_once_and_those_after_it_together(monkeypatch):
    monkeypatch.setattr(channel, "BATCH_S", 0.2)

    async def scenario(outbox, come):
        outbox.send_soon(b"a\n")
        assert await come() == b"a\n"
        outbox.send_soon(b"b\n")
        outbox.send_soon(b"c\n")
        assert await come() == b""
        await asyncio.sleep(0.2)
        assert await come() == b"b\nc\n"

    received(scenario)


def test_what_is_sent_at_once_takes_those_that_wait_with_it(monkeypatch):
    monkeypatch.setattr(channel, "BATCH_S", 60.0)

    async def scenario(outbox, come):
        outbox.send_soon(b"a\n")
        outbox.send_soon(b"b\n")
        outbox.send(EMPTY)
        assert await come() == b"a\nb\n\n"

    received(scenario)


def test_lines_that_wait_count_as_unsent(monkeypatch):
    monkeypatch.setattr(channel, "BATCH_S", 60.0)
    line = b"x" * 65_535 + b"\n"

    async def scenario(outbox, come):
        outbox.send_soon(b"a\n")
        taken = [outbox.send_soon(line) for _ in range(2 * UNSENT_BYTES // len(line))]
        assert sum(taken) == UNSENT_BYTES // len(line)

    received(scenario)


def test_nothing_is_sent_after_the_end():
    async def main():
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        with theirs:
            outbox = Outbox(writer)
            writer.close()
            outbox.send(b"a\n")
            outbox.send_soon(b"b\n")
            await writer.wait_closed()
            assert theirs.recv(10) == b""

    asyncio.run(main())


def test_an_observation_carries_its_tenant():
    seen = replace(OBSERVATION, asked=replace(OBSERVATION.asked, tenant="0123456789abcdef"))
    assert decode(encode(seen)).asked.tenant == "0123456789abcdef"


def lines(data, limit):
    """Return the lines that a reader with this limit gets of data."""

    async def main():
        reader = asyncio.StreamReader(limit)
        reader.feed_data(data)
        reader.feed_eof()
        found = []
        while line := await read_line(reader):
            found.append(line)
        return found

    return asyncio.run(main())


def test_lines_of_any_length_are_read():
    given = [b"a\n", b"x" * 1000 + b"\n", b"\n", b"y" * 10 + b"\n", b"z" * 11 + b"\n"]
    assert lines(b"".join(given), limit=10) == given


def test_what_is_left_at_the_end_is_read():
    assert lines(b"a\n" + b"x" * 25, limit=10) == [b"a\n", b"x" * 25]
