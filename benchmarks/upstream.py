"""A cheap fake pool: streams of timestamped chunks at a steady rate, and short JSON answers.

`python -m benchmarks.upstream PORT`. A request with the header x-chunks is answered with that many
chunks, each containing the time at which it was written; any other request with JSON, once its
body is read, whose usage states the prompt tokens of the header x-prompt-tokens. The bytes are
those of vLLM 0.32.
"""

import asyncio
import re
import sys
import time
from typing import Final

import uvloop
from aiohttp import web

STAMP: Final = re.compile(rb'"content":"(\d{20})"')
"""The time of an event: time.monotonic_ns() of this machine."""
USAGE: Final = b'"choices":[],"usage":{'
"""Text that occurs only in the usage event."""
END: Final = b"data: [DONE]"

_LARGEST_BODY: Final = 1 << 26
_OPEN = (
    '{"id":"chatcmpl-954d7c448ebdbfa0","object":"chat.completion.chunk","created":1795286208,'
    '"model":"m","choices":['
)
_FIRST = (
    '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
    '"prompt_token_ids":null,"prompt_text":null}'
)
_NEXT = (
    '{"index":0,"delta":{"content":"%020d"},"logprobs":null,"finish_reason":null,'
    '"token_ids":null}]}'
)
_LAST = (
    '{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"length","stop_reason":null,'
    '"token_ids":null}]}'
)
_USAGE = (
    '],"usage":{"prompt_tokens":20,"total_tokens":%d,"completion_tokens":%d,'
    '"completion_tokens_details":null}}'
)
_JSON = (
    '{"id":"chatcmpl-954d7c448ebdbfa0","object":"chat.completion","created":1795286208,"model":"m",'
    '"choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":45}}'
)


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer one request."""
    body = await request.read()
    chunks = int(request.headers.get("x-chunks", "0"))
    if not chunks:
        tokens = int(request.headers.get("x-prompt-tokens", "20"))
        return web.Response(
            text=_JSON % (tokens, tokens + 45), headers={"content-type": "application/json"}
        )
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    await _stream(response, chunks, float(request.headers["x-gap-ms"]) / 1000)
    if b'"include_usage"' in body:
        await response.write(_event(_USAGE % (20 + chunks, chunks)))
    await response.write(END + b"\n\n")
    return response


async def _stream(response: web.StreamResponse, chunks: int, gap_s: float) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await response.write(_event(_FIRST))
    for number in range(1, chunks + 1):
        # Scheduled from the start, so that a late chunk delays no other.
        await asyncio.sleep(max(0.0, start + number * gap_s - loop.time()))
        await response.write(_event(_NEXT % time.monotonic_ns()))
    await response.write(_event(_LAST))


def _event(rest: str) -> bytes:
    return f"data: {_OPEN}{rest}\n\n".encode()


def main() -> None:
    """Serve until SIGTERM."""
    app = web.Application(client_max_size=_LARGEST_BODY)
    app.router.add_route("*", "/{path:.*}", answer)
    loop = uvloop.new_event_loop()
    port = int(sys.argv[1])
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, loop=loop)


if __name__ == "__main__":
    main()
