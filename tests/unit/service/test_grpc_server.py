"""Calls on grpc.aio, which the server ends when their time is over."""

import asyncio
import time

from extproc.service.bounded_log import MOST_LINES
from extproc.service.grpc_server import GrpcServer, PolledCall
from extproc.service.h2_calls import PROCESS
from extproc.service.streams import Bounds
from extproc.transport import frames
from tests.support.conversation import FILES, read, stages
from tests.support.h2_dialogue import START, data, headers, message, rst, setting
from tests.support.http2_peer import connected


def served(scenario):
    """Serve a call that waits for ever beside a scenario; return whether its end was ours alone."""

    async def serve(began):
        call = PolledCall(0.0)
        began.set_result(call)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return call.was_ended()

    async def main():
        began = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(serve(began))
        scenario(await began, task)
        return await task

    return asyncio.run(main())


def test_a_call_is_ended_at_once():
    assert served(lambda call, _: call.end())


def test_a_call_that_its_client_ends_is_not_ended_by_us():
    assert not served(lambda _, task: task.cancel())


def test_a_call_that_both_end_is_ended_by_its_client():
    def both(call, task):
        call.end()
        task.cancel()

    assert not served(both)


def test_the_first_reply_is_left_a_tick():
    def once(call, task):
        call.sends_first_reply = True
        call.end()
        assert not task.cancelling()
        task.cancel()

    assert not served(once)


def test_a_first_reply_that_is_not_read_is_given_up_at_the_next_tick():
    def twice(call, _):
        call.sends_first_reply = True
        call.end()
        call.end()

    assert served(twice)


def test_streams_that_end_beside_their_reply_fill_no_log(caplog):
    """grpcio logs a traceback for most of them."""
    [path] = [file for file in FILES if file.stem == "buffered-short"]
    first = read(path)[0].message.SerializeToString()
    numbers = range(1, 200, 2)

    def leave(port):
        with connected(port) as peer:
            peer.sendall(START + setting(frames.INITIAL_WINDOW_SIZE, 0))
            for number in numbers:
                peer.sendall(headers(number, {":path": PROCESS}) + data(message(first), number))
            time.sleep(0.5)  # the replies wait for a window
            for number in numbers:
                peer.sendall(rst(number))
            time.sleep(0.5)

    async def main():
        server = GrpcServer(stages(), "127.0.0.1:0", Bounds(message_bytes=1 << 20))
        port = await server.start()
        await asyncio.to_thread(leave, port)
        await server.drain(0)

    asyncio.run(main())
    assert len(caplog.records) <= MOST_LINES
