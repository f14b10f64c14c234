"""`dualpool serve` as a process of its own, with what tests ask it over its ports."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from functools import partial

import grpc

from extproc.local.ports import some_port
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.service.streams import SERVICE
from tests.support import local_stack
from tests.support.conversation import FILES, read

ATTEMPTS = 3
# A process, or several, must start.
wait_for = partial(local_stack.wait_for, seconds=30)


def consecutive_ports(count):
    """Return the first of `count` consecutive ports that are free, and one more."""
    for _ in range(50):
        first = some_port()
        sockets = [socket.socket() for _ in range(count + 1)]
        try:
            for i, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + i))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return first, first + count
    raise AssertionError("no free ports")


@contextmanager
def serving(
    tmp_path,
    workers=1,
    notice_s=0,
    drain_s=5,
    transport="grpc",
    token_file="",
    host="127.0.0.1",
    more="",
    **environment,
):
    """Run `dualpool serve`; yield the process, its gRPC port and its HTTP address.

    On another `host` than loopback it ends as one of several replicas. `more`: other settings. It
    is never too late to read a request (`busy_share: 0`), since tests run beside each other.
    """
    arguments = (notice_s, drain_s, token_file, host, more)
    for attempt in range(ATTEMPTS):
        port, http = consecutive_ports(workers)
        command = [sys.executable, "-m", "extproc", "serve", "--transport", transport]
        command += ["--config", str(settings_file(tmp_path, workers, port, http, *arguments))]
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        ) as process:
            try:
                url = f"http://127.0.0.1:{http}"
                if is_ready(process, url):
                    yield process, port, url
                    return
                assert attempt + 1 < ATTEMPTS, process.stderr.read()
            finally:
                process.kill()


def settings_file(tmp_path, workers, port, http, notice_s, drain_s, token_file, host, more):
    file = tmp_path / "dualpool.yaml"
    file.write_text(
        f"listen: {{grpc: '{host}:{port}', http: '127.0.0.1:{http}', "
        f"notice_s: {notice_s}, drain_s: {drain_s}, http_token_file: '{token_file}', "
        f"busy_share: 0}}\n"
        f"workers: {workers}\n{more}"
    )
    return file


def is_ready(process, url):
    """Wait for a service; False if it has ended, as another program may have taken its port."""
    wait_for(lambda: process.poll() is not None or get(f"{url}/readyz")[0] == 200)
    return process.poll() is None


def get(url):
    """Return status and text; status 0 if nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def converse(port, name):
    """Play a conversation against a gRPC port; return the number of replies."""
    return asyncio.run(asyncio.wait_for(play(f"127.0.0.1:{port}", name), 60))


async def play(address, name):
    """Play a conversation against a gRPC address; return the number of replies."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(
            f"/{SERVICE}/Process",
            request_serializer=ProcessingRequest.SerializeToString,
            response_deserializer=ProcessingResponse.FromString,
        )()
        [path] = [file for file in FILES if file.stem == name]
        for turn in read(path):
            await call.write(turn.message)
        return len([reply async for reply in call])


def samples(url):
    """Return how many answers the service has learnt in the conversations' category."""
    categories = json.loads(get(f"{url}/state")[1])["categories"]
    return categories.get("prose/m", {}).get("samples", 0)
