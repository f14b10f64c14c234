"""An Envoy between scripted pools and a service that tests can kill or freeze."""

import asyncio
import io
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
import grpc.aio
from aiohttp import web

from extproc.config.load import load
from extproc.envoy.render import render_envoy
from extproc.local.children import Children, Command, Log
from extproc.local.envoy import envoy_command
from extproc.local.ports import free_ports
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.service.streams import SERVICE

WINDOWS = {"short": 8192, "long": 65536}
MESSAGE_TIMEOUT_S = 2.0  # the default is 1: test machines are slow
REFUSAL = {
    "error": {
        "message": "This model's maximum context length is 8192 tokens. However, your prompt "
        "contains at least 8193 input tokens, which exceeds this limit even without any output "
        "tokens. Please reduce the length of the input prompt.",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    }
}
BAD_REQUEST = {"error": {"message": "n must be at least 1", "type": "BadRequestError", "code": 400}}
CHUNKS = 40
HEADER_BYTES = 1 << 20
STALL_S = 12.0  # a pool that stalls reads no body for so long


@dataclass
class Puppet:
    """A scripted pool; `act` decides how it answers. Records what it received and sent."""

    name: str
    port: int
    act: str = "answer"
    pace_s: float = 0.0
    prompt_tokens: int = 8
    got: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    left: int = 0  # number of clients that disconnected
    runner: web.AppRunner | None = None

    async def start(self):
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/completions", self._serve)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/realtime", self._realtime)
        # As in vLLM, a client that disconnects cancels its request.
        self.runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=0.1,
            # vLLM takes more than aiohttp's defaults.
            max_headers=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()

    async def stop(self):
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def reset(self):
        self.act, self.pace_s, self.left, self.prompt_tokens = "answer", 0.0, 0, 8
        self.got.clear()
        self.headers.clear()
        self.sent.clear()
        if self.runner is None:
            await self.start()

    async def _models(self, _request):
        return self._json({"data": [{"id": "m"}]}, 200)

    async def _realtime(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{self.name} hears {message.data}")
        return socket

    async def _serve(self, request):
        if self.act == "stall":
            await asyncio.sleep(STALL_S)
        self.got.append(await request.read())
        self.headers.append({key.lower(): value for key, value in request.headers.items()})
        asked = json.loads(self.got[-1])
        match self.act:
            case "refuse":
                return self._json(REFUSAL, 400)
            case "find fault":
                return self._json(BAD_REQUEST, 400)
            case "fail":
                return self._json({"error": "engine dead"}, 503)
            case "reset":
                request.transport.abort()
        try:
            return await self._answer(request, asked)
        except asyncio.CancelledError:
            self.left += 1
            raise

    async def _answer(self, request, asked):
        if self.act == "wait":
            await asyncio.sleep(60)
        if not asked.get("stream"):
            await asyncio.sleep(self.pace_s)
            return self._json({"choices": [{"text": "x"}], "usage": self._usage()}, 200)
        headers = {"content-type": "text/event-stream; charset=utf-8"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        self.sent.append(b"")
        for number in range(CHUNKS):
            if self.act == "die" and number == CHUNKS // 2:
                request.transport.abort()
            await self._event(response, {"choices": [{"text": f"word {number}"}]})
            await asyncio.sleep(self.pace_s)
        if (asked.get("stream_options") or {}).get("include_usage"):
            await self._event(response, {"choices": [], "usage": self._usage()})
        await self._write(response, b"data: [DONE]\n\n")
        return response

    async def _event(self, response, value):
        await self._write(response, b"data: " + json.dumps(value).encode() + b"\n\n")

    async def _write(self, response, data):
        self.sent[-1] += data
        await response.write(data)

    def _usage(self):
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": CHUNKS}

    def _json(self, value, status):
        self.sent.append(json.dumps(value | {"pool": self.name}).encode())
        return web.Response(body=self.sent[-1], status=status, content_type="application/json")


@dataclass
class Answer:
    status: int
    body: bytes = b""
    pool: str = ""
    reason: str = ""  # empty: the service has not decided
    whole: bool = True
    seconds: float = 0.0

    @property
    def answered(self):
        """The pool that the body is of; empty if it is of none."""
        return json.loads(self.body)["pool"] if self.body.startswith(b"{") else ""


@dataclass(frozen=True)
class OwnForm:
    """The default Envoy, of the service's own settings.

    clusters: what the parts are called in it. patience_s: how late it may notice what has changed.
    """

    patience_s: float = 30.0
    clusters: Mapping[str, str] = field(
        default_factory=lambda: {"dualpool": "dualpool", "short": "short", "long": "long"}
    )

    def command(self, settings, _ports):
        return envoy_command(render_envoy(load(settings)))


class Mesh:
    """Envoy, a service and two scripted pools; used in the event loop that created it."""

    def __init__(self, transport, form=None):
        self.transport = transport
        self.form = form or OwnForm()
        self.ports = free_ports()
        self.short = Puppet("short", self.ports.pools[0])
        self.long = Puppet("long", self.ports.pools[1])
        self.children = Children()
        self.settings = Log()
        self.service = None
        self.url = f"http://127.0.0.1:{self.ports.listener}"

    async def start(self):
        ports = self.ports
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        pools = [
            {"name": each.name, "max_model_len": WINDOWS[each.name]}
            | {"address": f"127.0.0.1:{each.port}"}
            for each in (self.short, self.long)
        ]
        listen = {"grpc": f"127.0.0.1:{ports.grpc}", "http": f"127.0.0.1:{ports.http}"}
        envoy = {"listen": f"127.0.0.1:{ports.listener}", "admin": f"127.0.0.1:{ports.admin}"}
        document = {
            "listen": listen | {"notice_s": 0, "drain_s": 2, "transport": str(self.transport)},
            "pools": pools,
            "requests": {"observe_sample": 1.0},
            "envoy": envoy | {"message_timeout_ms": int(MESSAGE_TIMEOUT_S * 1000)},
        }
        self.settings.write(json.dumps(document))
        await self.reset()
        command = self.form.command(self.settings.path(), ports)
        self.envoy = await self.children.start(command)
        await self._ready(f"http://127.0.0.1:{ports.admin}/ready")
        await self.healthy()

    async def stop(self):
        await self.session.close()
        await self.children.stop()
        for puppet in (self.short, self.long):
            await puppet.stop()
        self.settings.close()

    async def reset(self):
        """Restore the pools and the service after a test."""
        for puppet in (self.short, self.long):
            await puppet.reset()
        if self.service is None or not self.service.running:
            await self.start_service()

    async def start_service(self):
        argv = (sys.executable, "-m", "extproc", "serve", "--config", str(self.settings.path()))
        self.service = await self.children.start(Command("service", argv))
        await self._ready(f"http://127.0.0.1:{self.ports.http}/readyz")

    async def harm(self, number):
        """Send the service a signal; wait for its end if the signal is fatal."""
        os.kill(self.service.pid, number)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            await self.service.ended()

    async def healthy(self, count=1):
        """Wait until Envoy sees `count` healthy services, and the pools that run as healthy."""
        await self._members("dualpool", self.ports.grpc, count)
        for puppet in (self.short, self.long):
            if puppet.runner is not None:
                await self._members(puppet.name, puppet.port, 1)
        # Envoy's workers learn of it a little later than its gauge.
        await asyncio.sleep(0.3)

    async def _members(self, part, port, count):
        async with asyncio.timeout(self.form.patience_s):
            while await self._healthy(self.form.clusters[part], port) != count:
                await asyncio.sleep(0.05)

    async def _healthy(self, cluster, port):
        """Return how many servers at the port of a cluster Envoy sees as healthy."""
        url = f"http://127.0.0.1:{self.ports.admin}/clusters?format=json"
        async with self.session.get(url) as response:
            found = (await response.json(content_type=None))["cluster_statuses"]
        hosts = [h for each in found if each["name"] == cluster for h in each["host_statuses"]]
        return sum(
            h["address"]["socket_address"]["port_value"] == port
            and not any(key.startswith("failed_") for key in h["health_status"])
            for h in hosts
        )

    async def noticed(self, puppet):
        """Wait until Envoy sees that a pool which has stopped is absent."""
        await self._members(puppet.name, puppet.port, 0)

    async def ask(self, body, **headers):
        """Send a request; return the answer, even an incomplete one."""
        # aiohttp warns of more than 1 MiB in bare bytes.
        return await self._send("POST", "/v1/completions", io.BytesIO(body), headers)

    async def ask_in_chunks(self, body, **headers):
        """Send a request without content-length; return the answer."""

        async def chunks():
            for start in range(0, len(body), 1 << 20):
                yield body[start : start + (1 << 20)]

        return await self._send("POST", "/v1/completions", chunks(), headers)

    async def fetch(self, path):
        """Send a request without a body; return the answer."""
        return await self._send("GET", path, None, {})

    async def _send(self, method, path, data, headers):
        started = asyncio.get_running_loop().time()
        named = {"content-type": "application/json"} | headers
        answer = Answer(0)
        try:
            async with self.session.request(
                method, f"{self.url}{path}", data=data, headers=named
            ) as response:
                answer.status = response.status
                answer.pool = response.headers.get("x-llm-pool", "")
                answer.reason = response.headers.get("x-llm-reason", "")
                async for chunk in response.content.iter_any():
                    answer.body += chunk
        except aiohttp.ClientError:
            answer.whole = False
        answer.seconds = asyncio.get_running_loop().time() - started
        return answer

    @asynccontextmanager
    async def half_sent(self, body):
        """Send half of a request; yield a function that sends the rest and reads the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports.listener)
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + b"connection: close\r\n\r\n" + body[: len(body) // 2])
        await writer.drain()

        async def rest():
            writer.write(body[len(body) // 2 :])
            await writer.drain()
            return _parsed(await reader.read())

        try:
            yield rest
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def stat(self, name):
        """Return one of Envoy's counters or gauges."""
        url = f"http://127.0.0.1:{self.ports.admin}/stats?format=json&filter=^{re.escape(name)}$"
        async with self.session.get(url) as response:
            stats = (await response.json(content_type=None))["stats"]
        return sum(each.get("value", 0) for each in stats)

    async def metrics(self):
        """Return the service's samples by name and labels; empty if it does not answer."""
        try:
            async with self.session.get(f"http://127.0.0.1:{self.ports.http}/metrics") as response:
                text = await response.text()
        except aiohttp.ClientError:
            return {}
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def count(self, name):
        """Return a counter: of the service if its name starts with dualpool_, else of Envoy."""
        if name.startswith("dualpool_"):
            return (await self.metrics()).get(name, 0.0)
        return await self.stat(name)

    async def grew(self, name, before):
        """Wait until a counter is more than it was."""
        with suppress(TimeoutError):
            async with asyncio.timeout(40):
                while await self.count(name) <= before:
                    await asyncio.sleep(0.05)
        assert await self.count(name) > before, name

    async def _ready(self, url):
        async with asyncio.timeout(30):
            while await self._status(url) != 200:
                await asyncio.sleep(0.02)

    async def _status(self, url):
        try:
            async with self.session.get(url) as response:
                return response.status
        except aiohttp.ClientError:
            return 0


@asynccontextmanager
async def impostor(mesh, behave):
    """Serve in place of the service with `behave`, a handler of raw messages."""
    await mesh.harm(signal.SIGTERM)
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        behave, ProcessingRequest.FromString, lambda raw: raw
    )
    generic = grpc.method_handlers_generic_handler(SERVICE, {"Process": handler})
    server.add_generic_rpc_handlers((generic, _always_healthy()))
    server.add_insecure_port(f"127.0.0.1:{mesh.ports.grpc}")
    seen = await mesh.stat("cluster.dualpool.health_check.success")
    await server.start()
    try:
        await mesh.grew("cluster.dualpool.health_check.success", seen)
        await mesh.healthy()
        yield
    finally:
        await server.stop(0)
        mesh.service = None


def _always_healthy():
    async def check(_request, _context):
        return b"\x08\x01"  # HealthCheckResponse.SERVING

    method = grpc.unary_unary_rpc_method_handler(check)
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})


def decision(message, headers):
    response = ProcessingResponse()
    if message.HasField("request_headers"):
        response.request_headers.SetInParent()
        return response
    common = response.request_body.response
    for key, value in headers.items():
        common.header_mutation.set_headers.add(
            header={"key": key, "raw_value": value.encode()}, append_action=2
        )
    common.clear_route_cache = True
    return response


def _parsed(data):
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    status = int(lines[0].split()[1]) if data else 0
    return Answer(status, body, headers.get("x-llm-pool", ""), headers.get("x-llm-reason", ""))
