"""A simulated vLLM server: its HTTP API on the engine model, so that a demo needs no accelerator.

It uses a real tokenizer, and schedules, batches, preempts, refuses, clamps and reports as vLLM 0.32
does, at the speed of an accelerator profile; the text consists of words from a list. Every answer
is marked: the header x-dualpool-simulated is 1, and system_fingerprint, where an answer has it, is
"dualpool-simulated".
"""

import argparse
import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

import msgspec
from aiohttp import web
from prometheus_client.exposition import choose_encoder

from extproc.simulator.engine import A100_80GB, Engine, EngineConfig, Profile
from extproc.simulator.pool.answer import (
    FINGERPRINT,
    SIMULATED_HEADER,
    AnswerForm,
    ChatForm,
    ChoicesForm,
    CompletionForm,
    describe_models,
)
from extproc.simulator.pool.generation import GenerationRun
from extproc.simulator.pool.messages_answer import MessagesForm
from extproc.simulator.pool.metrics import PoolMetrics
from extproc.simulator.pool.pace import PacedEngine
from extproc.simulator.pool.refusal import RefusedError, wrong_media_type
from extproc.simulator.pool.request import Generation, RequestReader
from extproc.simulator.pool.responses import unknown_response
from extproc.simulator.pool.responses_answer import ResponsesForm
from extproc.simulator.pool.routes import ANY, Handler, Routes, segment
from extproc.simulator.pool.shapes import Chat
from extproc.simulator.pool.tokenizer import Tokenizer

VERSION = "0.32.0"  # of vLLM
MAX_BODY_BYTES = 64 * 1024 * 1024
_THREAD_BYTES = 64 * 1024  # larger bodies are parsed in a thread; 64 KiB take 2 ms
# vLLM's --h11-max-header-count and --h11-max-incomplete-event-size.
_HEADER_LIMITS = {"max_headers": 256, "max_line_size": 1 << 22, "max_field_size": 1 << 22}
_STOP_S = 0.1  # grace period for unfinished answers
_EVENTS = "text/event-stream; charset=utf-8"

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPoolSettings:
    """Settings of one pool; `seed` is that of the generated texts."""

    model: str
    engine: EngineConfig
    profile: Profile = A100_80GB
    seed: int = 0


class _PoolHandlers:
    def __init__(self, settings: SimulatedPoolSettings) -> None:
        window = settings.engine.max_model_len
        self._settings = settings
        self._reader = RequestReader(Tokenizer(), settings.model, window)
        self._metrics = PoolMetrics(settings.model, settings.engine)
        self._pace = PacedEngine(Engine(settings.engine, settings.profile), self._metrics)
        self._clock: asyncio.Task[None] | None = None

    async def run(self, _: web.Application) -> AsyncIterator[None]:
        """Run the engine as long as the application."""
        self._clock = asyncio.create_task(self._pace.run())
        yield
        self._clock.cancel()

    async def health(self, _: web.Request) -> web.Response:
        alive = self._clock is not None and not self._clock.done()
        return web.Response(status=HTTPStatus.OK if alive else HTTPStatus.SERVICE_UNAVAILABLE)

    async def version(self, _: web.Request) -> web.Response:
        return _json(msgspec.json.encode({"version": VERSION}))

    async def models(self, _: web.Request) -> web.Response:
        window = self._settings.engine.max_model_len
        card = describe_models(self._settings.model, window, int(time.time()), secrets.token_hex(8))
        return _json(card)

    async def metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(
            body=encode(self._metrics.registry), headers={"Content-Type": content_type}
        )

    async def tokenize(self, request: web.Request) -> web.Response:
        ids = await _read(request, self._reader.read_tokenize)
        window = self._settings.engine.max_model_len
        answer = {"count": len(ids), "max_model_len": window, "tokens": ids, "token_strs": None}
        return _json(msgspec.json.encode(answer))

    async def count_tokens(self, request: web.Request) -> web.Response:
        count = await _read(request, self._reader.read_count)
        context = {"original_input_tokens": count}
        answer = {"input_tokens": count, "context_management": context}
        return _json(msgspec.json.encode(answer))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        generation = await _read(request, self._reader.read_chat)
        return await self._answer(request, generation, self._choices(request, generation, ChatForm))

    async def completion(self, request: web.Request) -> web.StreamResponse:
        generation = await _read(request, self._reader.read_completion)
        form = self._choices(request, generation, CompletionForm)
        return await self._answer(request, generation, form)

    async def responses(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request, self._reader.read_responses)
        generation = asked.generation
        form = ResponsesForm(generation.request_id, int(time.time()), asked.stated)
        return await self._answer(request, generation, form)

    async def invocations(self, request: web.Request) -> web.StreamResponse:
        """Answer SageMaker's endpoint: a chat or a completion, by the fields of the body."""
        kind = await _read(request, self._reader.read_invocation)
        return await (self.chat if kind is Chat else self.completion)(request)

    async def ping(self, _: web.Request) -> web.Response:
        return web.Response()

    async def response(self, request: web.Request) -> web.StreamResponse:
        raise unknown_response(segment(request, -1))

    async def cancel_response(self, request: web.Request) -> web.StreamResponse:
        raise unknown_response(segment(request, -2))

    async def messages(self, request: web.Request) -> web.StreamResponse:
        generation = await _read(request, self._reader.read_messages)
        form = MessagesForm(_id(request, generation), self._settings.model)
        return await self._answer(request, generation, form)

    def _choices(
        self, request: web.Request, generation: Generation, kind: type[ChoicesForm]
    ) -> AnswerForm:
        return kind(
            _id(request, generation),
            int(time.time()),
            self._settings.model,
            include_usage=generation.include_usage,
        )

    async def _answer(
        self, request: web.Request, generation: Generation, form: AnswerForm
    ) -> web.StreamResponse:
        run = GenerationRun(generation, self._settings.seed)
        with self._pace.admit(run.tickets):
            if not generation.stream:
                return _json(await run.whole(form))
            response = web.StreamResponse(headers={"Content-Type": _EVENTS})
            await response.prepare(request)
            async for event in run.events(form):
                if event:
                    await response.write(event)
        return response


def create_app(settings: SimulatedPoolSettings) -> web.Application:
    """Return the web application of one pool."""
    pool = _PoolHandlers(settings)
    # uvicorn ignores the content-encoding of a request, so vLLM reads the bytes as they came.
    app = web.Application(
        middlewares=[_refuse],
        client_max_size=MAX_BODY_BYTES,
        handler_args={"auto_decompress": False, **_HEADER_LIMITS},
    )
    app.cleanup_ctx.append(pool.run)
    app.on_response_prepare.append(_sign)
    app.router.add_route(ANY, "/{path:.*}", _routes(pool).dispatch)
    return app


def _routes(pool: _PoolHandlers) -> Routes:
    return Routes(
        {
            "/health": ("GET", pool.health),
            # vLLM mounts an application of its own here, which answers every method.
            "/metrics": (ANY, pool.metrics),
            "/version": ("GET", pool.version),
            "/tokenize": ("POST", pool.tokenize),
            "/v1/models": ("GET", pool.models),
            "/invocations": ("POST", pool.invocations),
            "/ping": (ANY, pool.ping),
            "/v1/chat/completions": ("POST", pool.chat),
            "/v1/completions": ("POST", pool.completion),
            "/v1/messages": ("POST", pool.messages),
            "/v1/messages/count_tokens": ("POST", pool.count_tokens),
            "/v1/responses": ("POST", pool.responses),
            "/v1/responses/{}": ("GET", pool.response),
            "/v1/responses/{}/cancel": ("POST", pool.cancel_response),
        }
    )


async def _read(request: web.Request, read: Callable[[bytes], _T]) -> _T:
    """Parse a body with `read`, in a thread if it is large; raises RefusedError."""
    if request.headers.get("Content-Type", "").partition(";")[0].lower() != "application/json":
        raise wrong_media_type()
    body = await request.read()
    if len(body) > _THREAD_BYTES:
        return await asyncio.to_thread(read, body)
    return read(body)


@web.middleware
async def _refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RefusedError as error:
        return _json(error.body, error.status)


async def _sign(_: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers.setdefault("Vary", "Origin")
    response.headers["Server"] = FINGERPRINT
    response.headers[SIMULATED_HEADER] = "1"


def _id(request: web.Request, generation: Generation) -> str:
    return request.headers.get("X-Request-Id", generation.request_id)


def _json(body: bytes, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m extproc.simulator.pool.server",
        description="A simulated vLLM server with the OpenAI API; answers are words from a list.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--name", default="pool", help="name in log lines")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8101, help="port to listen on; 0 picks a free one")
    add("--model", default="simulated", help="name of the served model")
    add("--max-model-len", type=int, default=8192, help="window, in tokens")
    add("--max-num-seqs", type=int, default=128, help="sequences that run at once")
    add("--max-num-batched-tokens", type=int, help="tokens of an iteration (--chunk-tokens)")
    add("--num-blocks", type=int, default=65_536, help="usable blocks of the KV cache")
    add("--block-size", type=int, default=16, help="tokens per block")
    add("--weights-ms", type=float, default=A100_80GB.weights_ms, help="time of an iteration")
    add("--sequence-ms", type=float, default=A100_80GB.sequence_ms, help="added per sequence")
    add(
        "--chunk-tokens",
        type=int,
        default=A100_80GB.chunk_tokens,
        help="tokens prefilled per --weights-ms",
    )
    add("--speed", type=float, default=1.0, help="factor that divides all times")
    add("--seed", type=int, default=0, help="seed of the generated texts")
    return parser


def _settings(flags: argparse.Namespace) -> SimulatedPoolSettings:
    """Return the settings from the flags; raises ValueError if vLLM would not start."""
    if flags.num_blocks * flags.block_size < flags.max_model_len:
        raise ValueError("the KV cache must hold max_model_len tokens")
    budget = flags.max_num_batched_tokens or max(flags.chunk_tokens, flags.max_num_seqs)
    engine = EngineConfig(
        max_model_len=flags.max_model_len,
        max_num_seqs=flags.max_num_seqs,
        max_num_batched_tokens=budget,
        num_blocks=flags.num_blocks,
        block_size=flags.block_size,
    )
    profile = Profile(
        weights_ms=flags.weights_ms,
        sequence_ms=flags.sequence_ms,
        chunk_tokens=flags.chunk_tokens,
        speed=flags.speed,
    )
    return SimulatedPoolSettings(model=flags.model, engine=engine, profile=profile, seed=flags.seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a pool until SIGTERM or SIGINT."""
    parser = _parser()
    flags = parser.parse_args(arguments)
    try:
        settings = _settings(flags)
    except ValueError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format=f"{flags.name}: %(message)s")
    try:
        web.run_app(
            create_app(settings),
            host=flags.host,
            port=flags.port,
            print=_log.info,
            access_log=None,
            # Without it aiohttp runs on for a client that has left, where vLLM aborts its
            # sequences.
            handler_cancellation=True,
            shutdown_timeout=_STOP_S,
        )
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        parser.exit(1, f"{flags.name}: cannot listen on {flags.host}:{flags.port}: {reason}\n")


if __name__ == "__main__":
    main()
