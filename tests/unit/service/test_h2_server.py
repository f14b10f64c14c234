"""What only the server on framing of its own does: sockets, time and memory."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
from dataclasses import replace

import pytest

from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.service.h2_server import H2Server
from extproc.service.streams import SERVICE, Bounds
from extproc.transport import frames
from extproc.transport.frames import frame, window_update
from tests.support.conversation import FILES, counted, read, stages
from tests.support.h2_dialogue import START, data, headers, message, rst, setting
from tests.support.http2_peer import connected
from tests.support.http2_peer import frames as received

BOUNDS = Bounds(message_bytes=1 << 20)
PROCESS = {":path": f"/{SERVICE}/Process"}
HEALTH = {":path": "/grpc.health.v1.Health/Check"}


def beside(scenario, bounds=BOUNDS, address="127.0.0.1:0", given=None):
    """Run a plain function of a port in a thread beside a server."""

    async def main():
        server = H2Server(given or stages(), address, bounds)
        port = await server.start()
        try:
            async with asyncio.timeout(30):
                return await asyncio.to_thread(scenario, port)
        finally:
            await server.drain(0)

    return asyncio.run(main())


def talk(port, *sent):
    """Send frames; return the kinds and payloads of the answer, up to the end."""
    with connected(port) as peer:
        peer.sendall(START + b"".join(sent))
        return [(kind, payload) for kind, _, payload in received(peer)]


FAULT = frame(frames.PING, bytes(7))


def test_a_health_check_that_is_no_message_is_refused():
    def scenario(port):
        return talk(port, headers(1, HEALTH), data(message(b"\xff")), FAULT)

    blocks = [payload for kind, payload in beside(scenario) if kind == frames.HEADERS]
    assert blocks[-1].endswith(b"a message that cannot be parsed")


def test_watching_health_is_not_implemented():
    def scenario(port):
        return talk(port, headers(1, {":path": "/grpc.health.v1.Health/Watch"}), FAULT)

    blocks = [payload for kind, payload in beside(scenario) if kind == frames.HEADERS]
    assert b"\x0212" in blocks[-1]


def test_a_peer_that_breaks_http2_reads_why_and_is_logged(caplog):
    answer = beside(lambda port: talk(port, FAULT))
    assert answer[-1] == (
        frames.GOAWAY,
        (0).to_bytes(4) + (6).to_bytes(4) + b"PING of a wrong length",
    )
    [line] = caplog.messages
    assert "from ('127.0.0.1', " in line
    assert "broke HTTP/2: PING of a wrong length" in line


def test_a_peer_that_does_not_hang_up_is_cut_off():
    def scenario(port):
        with connected(port) as peer:
            peer.sendall(START + FAULT)
            list(received(peer))
            with pytest.raises(ConnectionError):
                while True:
                    peer.sendall(bytes(1000))

    beside(scenario)


def echoed(size):
    """Return the head of an answer, and a piece of it that comes back as it is."""
    first = ProcessingRequest(response_headers={})
    first.protocol_config.response_body_mode = ProcessingMode.FULL_DUPLEX_STREAMED
    return first, ProcessingRequest(response_body={"body": bytes(size)})


def test_a_peer_that_does_not_read_is_not_read(tmp_path):
    first, piece = echoed(16_000)

    def scenario(_):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(tmp_path / "s"))
            peer.sendall(START + setting(frames.INITIAL_WINDOW_SIZE, 1 << 30))
            peer.sendall(window_update(0, 1 << 30) + headers(1, PROCESS))
            peer.sendall(data(message(first.SerializeToString())))
            peer.settimeout(1)
            with pytest.raises(TimeoutError):
                for _ in range(250):  # up to the window of the stream
                    peer.sendall(data(message(piece.SerializeToString())))
            answer = 0
            with contextlib.suppress(TimeoutError):
                while size := len(peer.recv(1 << 20)):
                    answer += size
            return answer

    # More than what had waited for it to read.
    assert beside(scenario, address=f"unix:{tmp_path}/s") > 300_000


def test_bytes_of_all_connections_are_bounded():
    given = stages()

    def scenario(port):
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(connected(port)) for _ in range(9)]
            large = b"\0" + (1 << 20).to_bytes(4) + bytes(16_379)
            for peer in peers:
                peer.sendall(START + headers(1, PROCESS) + data(large))
                for _ in range(31):
                    peer.sendall(data(bytes(16_384)))
            for peer in peers[:-1]:
                peer.settimeout(2)
                with contextlib.suppress(TimeoutError):
                    for kind, flags, _ in received(peer):
                        if kind == frames.HEADERS and flags & frames.END_STREAM:
                            return True
        return False

    assert beside(scenario, given=given)


def test_answers_that_nobody_reads_are_bounded_over_all_connections():
    size = 16_000

    def scenario(port):
        first, piece = (message(each.SerializeToString()) for each in echoed(size))
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(connected(port)) for _ in range(9)]
            for peer in peers:
                peer.sendall(START + setting(frames.INITIAL_WINDOW_SIZE, 0) + headers(1, PROCESS))
                peer.sendall(data(first) + data(piece) * (BOUNDS.message_bytes // 2 // size))
            for peer in peers:
                peer.settimeout(0.3)
                with contextlib.suppress(TimeoutError):
                    if frames.RST_STREAM in (kind for kind, _, _ in received(peer)):
                        return True
        return False

    assert beside(scenario)


def test_a_reset_stream_frees_its_place():
    given = stages()

    def scenario(port):
        with connected(port) as peer:
            peer.sendall(START)
            for number in range(1, 20, 2):
                peer.sendall(headers(number, PROCESS) + rst(number))
            peer.sendall(headers(99, PROCESS) + window_update(0, 1) + FAULT)
            list(received(peer))

    beside(scenario, replace(BOUNDS, streams=1), given=given)
    assert counted(given.metrics.streams_ended) == {("left",): 11}


def test_an_address_of_ipv6_serves_both():
    def scenario(port):
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port)) as peer:
                peer.sendall(START + FAULT)
                assert list(received(peer))

    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6")
    beside(scenario, address="[::]:0")


def resolved(monkeypatch, *addresses):
    """Have every host name stand for these addresses."""

    def found(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def listens_on(*hosts):
    def scenario(port):
        for host in hosts:
            with socket.socket() as peer:
                peer.connect((host, port))
                assert peer.recv(1)

    return scenario


def test_a_host_of_several_addresses_has_one_port(monkeypatch):
    resolved(monkeypatch, "127.0.0.1", "127.0.0.2")
    beside(listens_on("127.0.0.1", "127.0.0.2"), address="host:0")


@pytest.mark.parametrize("addresses", [("203.0.113.1", "127.0.0.1"), ("127.0.0.1", "203.0.113.1")])
def test_an_address_that_this_machine_lacks_is_skipped(monkeypatch, addresses):
    resolved(monkeypatch, *addresses)
    beside(listens_on("127.0.0.1"), address="host:0")


def test_a_host_of_another_machine_is_an_error(monkeypatch):
    resolved(monkeypatch, "203.0.113.1", "203.0.113.2")
    with pytest.raises(OSError, match="cannot listen on host:0 for gRPC"):
        beside(listens_on(), address="host:0")


def test_a_path_that_is_too_long_is_an_error(tmp_path):
    with pytest.raises(OSError, match=r"cannot listen on unix:.* for gRPC"):
        beside(listens_on(), address=f"unix:{tmp_path}/{'x' * 105}")


def test_curl_is_told_what_is_served():
    def scenario(port):
        argv = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge")
        done = subprocess.run(
            (*argv, f"http://127.0.0.1:{port}/"), capture_output=True, text=True, check=False
        )
        return done.stdout

    try:
        assert beside(scenario) == "415"
    except FileNotFoundError:
        pytest.skip("no curl")


def test_a_window_that_never_opens_is_no_reason_to_wait():
    given = stages()

    def scenario(port):
        with connected(port) as peer:
            closed = setting(frames.INITIAL_WINDOW_SIZE, 0)
            peer.sendall(START + closed + headers(1, HEALTH) + data(message(b"")))
            peer.sendall(FAULT)
            return [kind for kind, _, _ in received(peer)]

    assert frames.DATA not in beside(scenario, given=given)


def test_h2load_is_served():
    def scenario(port):
        with tempfile.NamedTemporaryFile() as file:
            file.write(message(b""))
            file.flush()
            argv = ("h2load", "-n", "5000", "-c", "4", "-m", "100", "-d", file.name)
            argv += ("-H", "content-type: application/grpc", "-H", "te: trailers")
            url = f"http://127.0.0.1:{port}{HEALTH[':path']}"
            return subprocess.run((*argv, url), capture_output=True, text=True, check=True).stdout

    if shutil.which("h2load") is None:
        pytest.skip("no h2load: Debian's package nghttp2-client has it")
    assert "5000 succeeded, 0 failed, 0 errored" in beside(scenario)


def backlog(streams):
    """Return what a peer sends that opens many streams at once, each with a body."""
    [path] = [file for file in FILES if file.stem == "buffered-short"]
    first, second = (message(turn.message.SerializeToString()) for turn in read(path))
    numbers = range(1, 2 * streams, 2)
    return START + b"".join(
        headers(number, PROCESS) + data(first, number) + data(second, number) for number in numbers
    )


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_backlog_in_a_socket_is_decided_by_the_size(kind, tmp_path):
    given, sent = stages(), backlog(900)
    path = tmp_path / "s"

    def scenario(port):
        unix = kind == "unix"
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as peer:
            peer.connect(str(path) if unix else ("127.0.0.1", port))
            peer.settimeout(20)
            peer.sendall(sent)
            while not late(given):
                assert peer.recv(1 << 20)

    address = f"unix:{path}" if kind == "unix" else "127.0.0.1:0"
    beside(scenario, replace(BOUNDS, late_s=0.01), address, given)


def late(given):
    return sum(
        count
        for (_, _, reason, _), count in counted(given.metrics.decisions).items()
        if reason == "busy"
    )
