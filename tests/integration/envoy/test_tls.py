"""TLS between Envoy and the service: asked by grpcio's client, and by the real Envoy."""

import asyncio
import os
import signal
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.service.certificates import CertificateFiles
from extproc.service.credentials import Certificates
from extproc.service.grpc_server import GrpcServer
from extproc.service.streams import Bounds
from tests.support.certificate_authority import Authority
from tests.support.conversation import stages
from tests.support.production_stack import children, fronted, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path):
    folder = tmp_path / "stranger"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture
def service(authority):
    return authority.issue("service")


def asked(files, trusted, papers=None):
    """Ask a server with these files for its health, as a client with these papers."""
    pair = (papers.key.read_bytes(), papers.cert.read_bytes()) if papers else (None, None)
    credentials = grpc.ssl_channel_credentials(trusted.file.read_bytes(), *pair)

    async def main():
        server = GrpcServer(
            stages(), "127.0.0.1:0", Bounds(message_bytes=1 << 20), Certificates(files)
        )
        port = await server.start()
        try:
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
                return answer.status
        finally:
            await server.drain(0)

    return asyncio.run(main())


def unavailable(*args):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        asked(*args)
    return error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_without_a_certificate_connects_where_none_is_asked_for(authority, service):
    files = CertificateFiles(service.cert, service.key)
    assert asked(files, authority) == health_pb2.HealthCheckResponse.SERVING


def test_a_client_that_the_authority_signed_connects(authority, service):
    files = CertificateFiles(service.cert, service.key, authority.file)
    envoy = authority.issue("envoy")
    assert asked(files, authority, envoy) == health_pb2.HealthCheckResponse.SERVING


def test_a_client_without_a_certificate_is_refused(authority, service):
    assert unavailable(CertificateFiles(service.cert, service.key, authority.file), authority)


def test_a_client_that_another_authority_signed_is_refused(authority, service, stranger):
    files = CertificateFiles(service.cert, service.key, authority.file)
    assert unavailable(files, authority, stranger.issue("envoy"))


def test_a_server_of_another_authority_is_not_trusted(service, stranger):
    assert unavailable(CertificateFiles(service.cert, service.key), stranger)


def behind_envoy(tmp_path, authority, service, envoy, workers=1):
    listen = {
        "tls_cert": str(service.cert),
        "tls_key": str(service.key),
        "tls_client_ca": str(authority.file),
    }
    shown = {
        "tls_ca": str(authority.file),
        "tls_cert": str(envoy.cert),
        "tls_key": str(envoy.key),
    }
    return fronted(tmp_path, listen, shown, workers)


@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "workers"])
def test_envoy_is_answered_over_mutual_tls(tmp_path, authority, service, workers):
    envoy = authority.issue("envoy")
    with behind_envoy(tmp_path, authority, service, envoy, workers) as stack:
        wait_for(lambda: stack.pool() == "short")
        wait_for(lambda: 'dualpool_streams_total{outcome="finished"} 0.0' not in stack.metrics())


def test_an_envoy_with_a_foreign_certificate_gets_no_stream(tmp_path, authority, service, stranger):
    with behind_envoy(tmp_path, authority, service, stranger.issue("envoy")) as stack:
        assert {stack.pool() for _ in range(20)} == {"long"}
        assert 'dualpool_streams_total{outcome="finished"} 0.0' in stack.metrics()


def test_a_worker_is_tried_again_until_its_certificates_are_right(tmp_path, authority, service):
    with behind_envoy(tmp_path, authority, service, authority.issue("envoy"), 2) as stack:
        good = service.key.read_bytes()
        service.key.write_bytes(b"broken")
        os.kill(children(stack.service.pid)[0], signal.SIGKILL)
        wait_for(lambda: "dualpool_workers_ready 1.0" in stack.metrics())
        assert stack.is_ready()
        assert stack.pool() in ("short", "long")
        service.key.write_bytes(good)
        wait_for(lambda: "dualpool_workers_ready 2.0" in stack.metrics())


def serve(*flags):
    command = [sys.executable, "-m", "extproc", "serve", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_key_of_another_certificate_is_one_clear_message(authority, service):
    other = authority.issue("other")
    done = serve("--tls-cert", service.cert, "--tls-key", other.key)
    assert done.returncode == 2
    fault = f"{other.key}: not the key of {service.cert}; use the two files of one certificate"
    assert done.stderr == f"{fault}\n"


def test_workers_say_it_once(tmp_path, service):
    file = tmp_path / "two.yaml"
    file.write_text("workers: 2\nlisten: {grpc: '127.0.0.1:0', http: '127.0.0.1:0'}\n")
    done = serve("--config", file, "--tls-cert", tmp_path / "none", "--tls-key", service.key)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_certificate_needs_its_key(service):
    done = serve("--tls-cert", service.cert)
    assert done.returncode == 2
    assert "is not allowed: none without listen.tls_key\n" in done.stderr


def test_framing_of_our_own_has_no_tls(service):
    done = serve("--transport", "h2", "--tls-cert", service.cert, "--tls-key", service.key)
    assert done.returncode == 2
    assert (
        "listen.transport: 'h2' is not allowed: auto or grpc with listen.tls_cert\n" in done.stderr
    )
