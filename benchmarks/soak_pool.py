"""A fake pool for the soak test: answers at once, and logs what it received and sent.

    python benchmarks/soak_pool.py NAME PORT LOG

On SIGTERM it closes its socket, finishes the running requests and exits.
"""

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from typing import IO

from aiohttp import web

CHUNKS = 8
PACE_S = 0.01


class SoakPool:
    """One pool; its log has one line of JSON per complete answer."""

    def __init__(self, name: str, log: IO[str]) -> None:
        self._name, self._log = name, log

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer a completion, streamed or not."""
        body = await request.read()
        asked = json.loads(body)
        usage = {"prompt_tokens": len(asked["prompt"]) // 4 + 1, "completion_tokens": CHUNKS}
        if not asked.get("stream"):
            await asyncio.sleep(CHUNKS * PACE_S)
            data = _json({"choices": [{"text": self._name}], "usage": usage})
            response: web.StreamResponse = web.Response(body=data, content_type="application/json")
            self._log_answer(request, body, [data], b"")
            return response
        told = bool((asked.get("stream_options") or {}).get("include_usage"))
        last = _event({"choices": [], "usage": usage}) if told else b""
        events = [_event({"choices": [{"text": f"{self._name} {n}"}]}) for n in range(CHUNKS)]
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(event)
            await asyncio.sleep(PACE_S)
        await response.write(last + b"data: [DONE]\n\n")
        self._log_answer(request, body, [*events, b"data: [DONE]\n\n"], last)
        return response

    def _log_answer(
        self, request: web.Request, body: bytes, parts: list[bytes], usage: bytes
    ) -> None:
        """Log an answer; `usage` was sent before its last part."""
        row = {
            "id": request.headers["x-request-id"],
            "pool": self._name,
            "got": hashlib.sha256(body).hexdigest(),
            "sent": hashlib.sha256(b"".join([*parts[:-1], usage, parts[-1]])).hexdigest(),
            "sent_less_usage": hashlib.sha256(b"".join(parts)).hexdigest(),
            "tells_usage": bool(usage) or len(parts) == 1,
        }
        self._log.write(json.dumps(row) + "\n")


def _event(value: object) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def main(name: str, port: str, log: str) -> None:
    """Serve until SIGTERM."""
    with Path(log).open("a", buffering=1, encoding="utf-8") as file:
        app = web.Application(client_max_size=1 << 26, handler_args={"handler_cancellation": True})
        app.router.add_post("/v1/completions", SoakPool(name, file).complete)
        web.run_app(
            app, host="127.0.0.1", port=int(port), print=None, access_log=None, shutdown_timeout=5
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
