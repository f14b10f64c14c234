"""Replays recorded answers through the real Envoy with the rendered configuration."""

import asyncio
import http.client
from collections.abc import Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

import grpc
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from extproc.config.settings import Settings
from extproc.envoy.render import render_envoy
from extproc.local.children import Children
from extproc.local.envoy import envoy_command
from extproc.local.ports import free_ports
from extproc.names import NOTE, USAGE_METADATA
from extproc.protos.envoy.data.ai.v3.token_usage_pb2 import TokenUsage
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.service.streams import SERVICE
from tests.support.envoys import binary
from tests.support.local_stack import answers, fetch, in_background, wait_for
from tests.support.paths import DATA

RESPONSES = DATA / "responses"
# In place of the service: a note has every answer observed, and the request header x-hide asks
# Envoy to hide the usage.
FLAG = {
    "name": "envoy.filters.http.header_to_metadata",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config",
        "request_rules": [
            {
                "header": "x-hide",
                "on_header_present": {
                    "metadata_namespace": "llm",
                    "key": "hide_usage",
                    "value": "yes",
                },
            },
            {
                "header": "x-unobserved",
                "on_header_missing": {"metadata_namespace": "llm", "key": NOTE, "value": "{}"},
            },
        ],
    },
}


def recorded(name):
    """Return the content type and the body of a recorded answer."""
    head, _, body = (RESPONSES / f"{name}.http").read_bytes().partition(b"\n\n")
    return head.splitlines()[1].removeprefix(b"content-type: ").decode(), body


@dataclass
class Replay:
    """Envoy in front of a server that answers with the given pieces, one write each."""

    port: int
    admin: str
    kind: str = ""
    pieces: Iterable[bytes] = ()
    whole: bool = True  # whether the server completes the answer
    stated: bool = False  # whether the server states the length of the body
    usages: list[TokenUsage] = field(default_factory=list)  # as sent to the observer

    def ask(self, kind, pieces, path="/v1/chat/completions", hide=True, whole=True):
        """Return the body that the client gets."""
        with self.asking(kind, pieces, path, hide, whole) as answer:
            return answer.read()

    @contextmanager
    def asking(self, kind, pieces, path="/v1/chat/completions", hide=True, whole=True):
        """Yield the answer before its body is read."""
        self.kind, self.pieces, self.whole = kind, pieces, whole
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("POST", path, b"{}", {"x-hide": "1"} if hide else {})
            with connection.getresponse() as answer:
                yield answer

    def counted(self, prefix):
        """Return Envoy's non-zero counters with that prefix."""
        answer = fetch(f"{self.admin}/stats?format=json&usedonly&filter=^{prefix}")
        return {each["name"]: each["value"] for each in answer.json["stats"] if each.get("value")}

    async def serve(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        pieces, framing = self.pieces, "transfer-encoding: chunked"
        if self.stated:
            pieces = list(pieces)
            framing = f"content-length: {sum(map(len, pieces))}"
        # Unannounced, the end of the connection would meet Envoy's next request on it.
        head = ("HTTP/1.1 200 OK", f"content-type: {self.kind}", framing, "connection: close")
        writer.write("\r\n".join((*head, "", "")).encode())
        for piece in pieces:
            writer.write(piece if self.stated else b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            # Envoy would read consecutive writes as one piece.
            await asyncio.sleep(0.002)
        if self.whole and not self.stated:
            writer.write(b"0\r\n\r\n")
        writer.close()


async def observe(usages, port):
    """Start a service that only records the usage that Envoy sends with the trailers."""

    async def process(messages, context):
        async for message in messages:
            if not message.observability_mode:
                return
            found = message.metadata_context.typed_filter_metadata
            if message.HasField("response_trailers") and USAGE_METADATA in found:
                usages.append(TokenUsage.FromString(found[USAGE_METADATA].value))
        # An asynchronous generator that yields nothing.
        for _ in ():
            yield ProcessingResponse()

    handler = grpc.stream_stream_rpc_method_handler(
        process, ProcessingRequest.FromString, ProcessingResponse.SerializeToString
    )
    server, healthy = grpc.aio.server(), health.aio.HealthServicer()
    await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"Process": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server


@contextmanager
def replaying(version="1.40", form="auto"):
    """Run Envoy in front of a server that replays answers."""
    with in_background() as loop:

        def wait(work):
            return asyncio.run_coroutine_threadsafe(work, loop).result(60)

        ports, children = free_ports(), Children()
        replay = Replay(ports.listener, f"http://127.0.0.1:{ports.admin}")
        server = wait(asyncio.start_server(replay.serve, "127.0.0.1", 0))
        observer = wait(observe(replay.usages, ports.grpc))
        pool = server.sockets[0].getsockname()[1]
        command = envoy_command(yaml.safe_dump(_configuration(ports, pool, version, form)))
        try:
            argv = (binary(version), *command.argv[1:])
            wait(children.start(replace(command, argv=argv)))
            wait_for(lambda: answers(f"{replay.admin}/ready"))
            yield replay
        finally:
            wait(children.stop())
            wait(observer.stop(None))
            server.close()


def _configuration(ports, pool, version, form):
    settings = {
        "listen": {"grpc": f"127.0.0.1:{ports.grpc}"},
        "pools": [{"name": "long", "max_model_len": 8192, "address": f"127.0.0.1:{pool}"}],
        "envoy": {
            "version": version,
            "form": form,
            "listen": f"127.0.0.1:{ports.listener}",
            "admin": f"127.0.0.1:{ports.admin}",
            # The pool takes each connection for a request.
            "pool_health": "none",
        },
    }
    document = yaml.safe_load(render_envoy(Settings.model_validate(settings)))
    [listener] = document["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"].insert(0, FLAG)
    return document
