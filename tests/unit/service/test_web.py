"""HTTP/1.1 over real sockets, on both event loops."""

import asyncio
import contextlib
import logging

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.service import web
from extproc.service.web import TEXT, Exchanges, Response

GET = b"GET /text HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request):
    return request.param


async def text(request):
    return Response(request.query.get("say", "text").encode(), TEXT)


async def echo(request):
    return Response(await request.read(), TEXT)


async def fail(_request):
    raise RuntimeError("a bug")


class Endless:
    """Pieces without an end, and whether their generator was closed."""

    def __init__(self):
        self.pieces, self.closed = 0, asyncio.Event()

    async def __call__(self, _request):
        return Response(self.generate(), "text/event-stream")

    async def generate(self):
        try:
            while True:
                self.pieces += 1
                yield b"x" * 10_000
                await asyncio.sleep(0)
        finally:
            self.closed.set()


async def break_off(_request):
    async def pieces():
        yield b"a part"
        raise RuntimeError("a bug")

    return Response(pieces(), TEXT)


ROUTES = {
    "/text": {"GET": text},
    "/echo": {"POST": echo},
    "/fail": {"GET": fail},
    "/ignore": {"POST": text},
    "/break": {"GET": break_off},
}


@contextlib.asynccontextmanager
async def listening(more=()):
    exchanges = Exchanges(ROUTES | dict(more))
    server = await asyncio.get_running_loop().create_server(exchanges, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], exchanges
    finally:
        server.close()
        await asyncio.wait_for(exchanges.stop(), 60)


@contextlib.asynccontextmanager
async def connected(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def asking(handler, sent=GET):
    """Send a request to /text for this handler; yield the connection and the exchanges."""
    more = {"/text": {"GET": handler, "POST": handler}}
    async with listening(more) as (port, exchanges), connected(port) as (reader, writer):
        writer.write(sent)
        yield reader, writer, exchanges


def ask(run, *pieces, pause_s=0.0):
    """Send pieces, and return all that comes until the connection closes."""

    async def main():
        async with listening() as (port, _), connected(port) as (reader, writer):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(pause_s)
            return await asyncio.wait_for(reader.read(), 60)

    return run(main())


def status(answer):
    return int(answer.split(b" ", 2)[1])


def body(answer):
    return answer.partition(b"\r\n\r\n")[2]


def test_a_request_is_answered_and_the_connection_closed(run):
    answer = ask(run, GET)
    assert (status(answer), body(answer)) == (200, b"text")
    assert b"\r\ncontent-length: 4\r\n" in answer.lower()
    assert b"\r\nconnection: close\r\n" in answer.lower()


def test_a_request_may_come_a_byte_at_a_time(run):
    assert body(ask(run, *(GET[i : i + 1] for i in range(len(GET))))) == b"text"


def test_a_second_request_is_dropped(run):
    assert ask(run, GET + GET).count(b"HTTP/1.1 ") == 1


def test_head_is_answered_without_the_body(run):
    answer = ask(run, GET.replace(b"GET", b"HEAD"))
    assert (status(answer), body(answer)) == (200, b"")
    assert b"content-length: 4" in answer.lower()


def test_head_of_a_stream_has_an_end(run):
    async def main():
        endless = Endless()
        async with asking(endless, GET.replace(b"GET", b"HEAD")) as (reader, _, _):
            return status(await asyncio.wait_for(reader.read(), 60)), endless.pieces

    assert run(main()) == (200, 0)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (b"/text?say=a%20b+c&x", b"a b c"),
        (b"http://x:80/text?say=proxy", b"proxy"),
        (b"/te%78t", b"text"),
    ],
)
def test_a_target_is_decoded(run, target, said):
    assert body(ask(run, GET.replace(b"/text", target))) == said


def test_a_wrong_method_is_told_the_right_ones(run):
    answer = ask(run, GET.replace(b"GET", b"DELETE"))
    assert (status(answer), body(answer)) == (405, b"405: Method Not Allowed")
    assert b"\r\nallow: HEAD, GET\r\n" in answer


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"GET http://[x/text HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET /text HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
        (b"GET /text HTTP/1.1\r\nhost: x\r\nx: " + b"y" * web.MOST_HEAD_BYTES, 431),
        (b"GET /text HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * web.MOST_LINES + b"\r\n", 431),
        (b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1048577\r\n\r\n", 413),
        (CHUNKED + b"1\r\na\r\n" * (web.MOST_CHUNKS + 1), 413),
        (CHUNKED + b"200000\r\n" + b"a" * ((1 << 20) + 1), 413),
        (CHUNKED + b"nonsense\r\n", 400),
        (b"GET /fail HTTP/1.1\r\nhost: x\r\n\r\n", 500),
    ],
)
def test_what_cannot_be_answered_is_refused(run, sent, code):
    async def main():
        async with listening() as (port, _), connected(port) as (reader, writer):
            writer.write(sent)
            if code == 413:  # its connection stays open until it has sent all
                return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            return await asyncio.wait_for(reader.read(), 60)

    assert status(run(main())) == code


@pytest.mark.parametrize("piece_bytes", [1_400, 20_000])
def test_a_large_head_is_read_however_it_arrives(run, piece_bytes):
    head = GET.replace(b"host", b"cookie: " + b"c" * (web.MOST_HEAD_BYTES - 2_000) + b"\r\nhost")
    pieces = [head[at : at + piece_bytes] for at in range(0, len(head), piece_bytes)]
    assert status(ask(run, *pieces, pause_s=0.01)) == 200


def test_a_body_arrives_in_pieces(run):
    assert body(ask(run, POST, b"he", b"llo", pause_s=0.01)) == b"hello"


def test_a_body_arrives_with_its_head(run):
    assert body(ask(run, POST + b"hello")) == b"hello"


def test_a_body_may_come_in_chunks(run):
    assert body(ask(run, CHUNKED + b"2\r\nhe\r\n", b"3;x=y\r\nllo\r\n", b"0\r\n\r\n")) == b"hello"


def test_a_body_in_the_largest_chunks_is_read_whole(run):
    sent = b"80000\r\n" + b"a" * (1 << 19) + b"\r\n"
    assert len(body(ask(run, CHUNKED, sent, sent, b"0\r\n\r\n"))) == web.MOST_BODY_BYTES


def half_closed(run, sent):
    """Send this and close that side at once; return all that comes."""

    async def main():
        async with listening() as (port, _), connected(port) as (reader, writer):
            writer.write(sent)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), 60)

    return run(main())


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (GET, 200),
        (GET.replace(b"GET", b"HEAD"), 200),
        (POST + b"hello", 200),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", 200),
        (POST + b"he", 400),
        (CHUNKED + b"5\r\nhello\r\n", 400),
        (POST.replace(b"echo", b"ignore") + b"he", 200),
        (GET[:-2], 400),
    ],
)
def test_who_has_closed_its_side_is_answered(run, sent, code):
    assert status(half_closed(run, sent)) == code


def test_who_asks_nothing_and_closes_is_sent_nothing(run):
    assert half_closed(run, b"") == b""


def test_who_waits_for_100_is_told_to_continue(run):
    async def main():
        async with listening() as (port, _), connected(port) as (reader, writer):
            writer.write(POST.replace(b"host", b"expect: 100-continue\r\nhost"))
            told = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            writer.write(b"hello")
            return status(told), body(await asyncio.wait_for(reader.read(), 60))

    assert run(main()) == (100, b"hello")


async def send_to_ignore(sent):
    """Send a body, of which the head promises a gigabyte; return the answer."""
    async with listening() as (port, _), connected(port) as (reader, writer):
        writer.write(POST.replace(b"echo", b"ignore").replace(b"5", b"1000000000"))
        await asyncio.sleep(0.1)
        for _ in range(sent >> 20):
            writer.write(bytes(1 << 20))
            await asyncio.wait_for(writer.drain(), 60)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 60)


def test_who_still_sends_a_body_can_read_why_it_is_refused(run):
    assert body(run(send_to_ignore(web.MOST_DROPPED_BYTES))) == b"text"


def test_who_sends_for_ever_is_cut_off(run):
    with pytest.raises(ConnectionError):
        run(send_to_ignore(10 * web.MOST_DROPPED_BYTES))


def test_who_sends_on_after_a_body_is_cut_off(run, monkeypatch):
    monkeypatch.setattr(web, "STOP_S", 0.05)

    async def main():
        async def read_and_wait(request):
            await request.read()
            await asyncio.Event().wait()

        asked = POST.replace(b"echo", b"text") + b"hello"
        async with asking(read_and_wait, asked) as (_, writer, _):
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 10 * web.MOST_DROPPED_BYTES and not writer.is_closing():
                    writer.write(bytes(1 << 20))
                    await asyncio.wait_for(writer.drain(), 60)
                    sent += 1 << 20
            return sent

    assert run(main()) < 10 * web.MOST_DROPPED_BYTES


def test_a_post_without_a_body_has_an_empty_one(run):
    answer = ask(run, POST.replace(b"content-length: 5\r\n", b""))
    assert (status(answer), body(answer)) == (200, b"")


def test_a_body_is_not_read_before_it_is_asked_for(run):
    async def main():
        asked = asyncio.Event()

        async def wait(request):
            await asked.wait()
            return Response(b"%d" % len(await request.read()), TEXT)

        head = POST.replace(b"echo", b"text").replace(b"5", b"1000000")
        async with asking(wait, head) as (reader, writer, exchanges):
            await asyncio.sleep(0.05)
            writer.write(bytes(1_000_000))
            await asyncio.sleep(0.05)
            [exchange] = exchanges._open
            held = len(exchange._body)
            asked.set()
            return held, body(await asyncio.wait_for(reader.read(), 60))

    assert run(main()) == (0, b"1000000")


def test_a_body_that_is_cut_is_no_body(run):
    async def main():
        outcome = asyncio.get_running_loop().create_future()

        async def note(request):
            try:
                await request.read()
            except web.Refusal as refusal:
                outcome.set_result(refusal.response.status)
                raise

        async with asking(note, POST.replace(b"echo", b"text") + b"he") as (_, writer, _):
            writer.write_eof()
            return await asyncio.wait_for(outcome, 60)

    assert run(main()) == 400


def test_a_peer_that_reads_nothing_is_sent_little(run):
    async def main():
        endless = Endless()
        async with asking(endless):
            before = -1
            while before != (before := endless.pieces):
                await asyncio.sleep(0.3)
            return before

    assert 1 <= run(main()) < 2000


def test_a_stream_ends_when_its_peer_leaves(run):
    async def main():
        endless = Endless()
        async with asking(endless) as (reader, writer, _):
            await reader.readexactly(100_000)
            writer.close()
            await asyncio.wait_for(endless.closed.wait(), 60)

    run(main())


def test_a_stream_that_fails_has_no_end(run):
    answer = ask(run, GET.replace(b"text", b"break"))
    assert b"a part" in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_a_page_that_fails_is_logged(run, caplog):
    ask(run, GET.replace(b"text", b"fail"))
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage() == "a page failed"
    assert record.exc_info


def test_stopping_waits_for_an_answer(run):
    async def main():
        begun = asyncio.Event()

        async def slow(_request):
            begun.set()
            await asyncio.sleep(0.1)
            return Response(b"late", TEXT)

        async with asking(slow) as (reader, _, exchanges):
            await begun.wait()
            await exchanges.stop()
            return body(await asyncio.wait_for(reader.read(), 60))

    assert run(main()) == b"late"


def test_stopping_does_not_wait_for_ever(run, monkeypatch):
    monkeypatch.setattr(web, "STOP_S", 0.05)

    async def main():
        endless = Endless()
        async with asking(endless) as (reader, _, exchanges):
            await reader.readexactly(10)
            await asyncio.wait_for(exchanges.stop(), 60)
            assert endless.closed.is_set()

    run(main())


def test_stopping_closes_a_connection_that_asks_nothing(run):
    async def main():
        async with listening() as (port, exchanges), connected(port) as (reader, _):
            while not exchanges._open:
                await asyncio.sleep(0.01)
            await exchanges.stop()
            return await asyncio.wait_for(reader.read(), 60)

    assert run(main()) == b""


class Written(asyncio.Transport):
    """Takes what is written, as a transport of the event loop does."""

    def __init__(self):
        super().__init__()
        self.written, self.closing = b"", False

    def write(self, data):
        self.written += data

    def write_eof(self):
        pass

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


WORDS = (
    *(b"GET ", b"POST ", b"/echo", b"/text", b"?say=%", b" HTTP/1.1", b"\r\n", b"\r\n\r\n"),
    *(b"host: x\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"),
    *(b"connection: upgrade\r\nupgrade: h2c\r\n", b"expect: 100-continue\r\n", GET, POST),
)
PARTS = st.lists(st.one_of(st.binary(min_size=1, max_size=30), st.sampled_from(WORDS)), max_size=12)


@given(PARTS)
@settings(deadline=None)
def test_whatever_comes_is_answered_at_most_once(parts):
    faults = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        exchanges, transport = Exchanges(ROUTES), Written()
        exchange = exchanges()
        exchange.connection_made(transport)
        for part in parts:
            exchange.data_received(part)
            await asyncio.sleep(0)
        exchange.connection_lost(None)
        await exchanges.stop()
        return transport.written

    written = asyncio.run(main())
    answers = written.replace(b"HTTP/1.1 100 \r\n\r\n", b"")
    assert not faults
    assert answers == b"" or (answers.startswith(b"HTTP/1.1 ") and answers.count(b"\ndate:") == 1)
