import asyncio
import json

from aiohttp import web

from extproc.local.client import Ending, SendOptions, send_all
from extproc.local.traffic import Item, TrafficApi
from extproc.names import BUDGET_HEADER, CATEGORY_HEADER, POOL_HEADER, REASON_HEADER

_HEADERS = {
    POOL_HEADER: "short",
    REASON_HEADER: "fits",
    BUDGET_HEADER: "77",
    CATEGORY_HEADER: "prose/m",
}
_DOCUMENT = {
    "choices": [{"message": {"content": "a b"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2},
}
_ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
_WORD = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}
_END = {"choices": [{"delta": {"content": "b"}, "finish_reason": "length"}]}
_USAGE = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2}}


def _item(number: int = 0, arrival_s: float = 0.0) -> Item:
    return Item(f"r{number}", "english", TrafficApi.CHAT, b"{}", 2, None, True, True, arrival_s)


def _events(*chunks: object) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def _serve(handler, items, pace):
    async def run():
        app = web.Application()
        app.router.add_post("/v1/chat/completions", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        heard = []
        try:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            return await send_all(url, items, pace, heard.append), heard
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def _answer(body: bytes, kind: str = "application/json", status: int = 200, timeout_s: float = 20):
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers=_HEADERS | {"content-type": kind})

    (answer,), _ = _serve(handle, [_item()], SendOptions(timeout_s=timeout_s))
    return answer


def _stream(body: bytes):
    return _answer(body, "text/event-stream; charset=utf-8")


def _told(answer):
    return answer.ending, answer.prompt_tokens, answer.completion_tokens, answer.finish


def test_a_document_tells_its_usage():
    answer = _answer(json.dumps(_DOCUMENT).encode())
    assert _told(answer) == (Ending.COMPLETE, 10, 2, "stop")


def test_the_headers_tell_the_decision():
    answer = _answer(json.dumps(_DOCUMENT).encode())
    assert (answer.pool, answer.reason, answer.category, answer.budget) == (
        "short",
        "fits",
        "prose/m",
        77,
    )


def test_a_stream_tells_its_usage():
    body = _events(_ROLE, _WORD, _END, _USAGE) + b"data: [DONE]\n\n"
    assert _told(_stream(body)) == (Ending.COMPLETE, 10, 2, "length")


def test_without_usage_the_chunks_with_text_are_counted():
    body = _events(_ROLE, _WORD, _END) + b"data: [DONE]\n\n"
    assert _told(_stream(body)) == (Ending.COMPLETE, 0, 2, "length")


def test_a_stream_without_its_end_is_broken():
    assert _stream(_events(_ROLE, _WORD)).ending is Ending.BROKEN


def test_a_stream_cut_within_an_event_is_broken():
    assert _stream(_events(_ROLE, _WORD)[:-20]).ending is Ending.BROKEN


def test_a_document_that_is_no_json_is_broken():
    assert _answer(b"{").ending is Ending.BROKEN


def test_statuses_of_the_client_and_of_the_server_are_told_apart():
    assert _answer(b"{}", status=400).ending is Ending.REFUSED
    assert _answer(b"", status=503).ending is Ending.FAILED


def test_a_server_that_is_absent_is_broken():
    async def run():
        return await send_all("http://127.0.0.1:1", [_item()], SendOptions(), lambda _: None)

    (answer,) = asyncio.run(run())
    assert answer.ending is Ending.BROKEN
    assert answer.error


def test_silence_times_out():
    async def handle(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    (answer,), _ = _serve(handle, [_item()], SendOptions(timeout_s=0.1))
    assert answer.ending is Ending.TIMEOUT


def test_no_more_than_the_stated_number_is_in_flight():
    in_flight, most = [], []

    async def handle(request: web.Request) -> web.Response:
        in_flight.append(request)
        most.append(len(in_flight))
        await asyncio.sleep(0.01)
        in_flight.remove(request)
        return web.json_response({})

    items = [_item(number) for number in range(12)]
    answers, heard = _serve(handle, items, SendOptions(concurrency=3))
    assert max(most) == 3
    assert [answer.item for answer in answers] == items
    assert sorted(answer.item.request_id for answer in heard) == sorted(i.request_id for i in items)


def test_arrivals_keep_their_times():
    async def handle(_request: web.Request) -> web.Response:
        return web.json_response({"at": asyncio.get_running_loop().time()})

    order = []

    async def note(request: web.Request) -> web.Response:
        order.append(request.headers["x-request-id"])
        return await handle(request)

    items = [_item(0, 0.3), _item(1, 0.0), _item(2, 0.15)]
    _serve(note, items, SendOptions(open_loop=True))
    assert order == ["r1", "r2", "r0"]
