"""Calls on grpc.aio, which the server ends when their time is over."""

import asyncio

from extproc.service.grpc_server import PolledCall


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
