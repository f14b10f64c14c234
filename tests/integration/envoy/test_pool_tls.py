"""A pool of two servers that use TLS, behind the real Envoy; the service is absent."""

import ssl
import threading
from contextlib import ExitStack, contextmanager
from http.server import ThreadingHTTPServer

import pytest
import yaml

from extproc.config.settings import Settings
from extproc.envoy.render import render_envoy
from extproc.local.ports import free_ports
from tests.support.certificate_authority import Authority
from tests.support.http_server import Answering
from tests.support.local_stack import fetch, wait_for
from tests.support.manifests import serving


class Server(Answering):
    """Answers with the port that it listens on."""

    def found(self):
        return 200, str(self.server.server_port).encode()


@contextmanager
def tls_server(issued):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def servers(authority):
    with ExitStack() as stack:
        issued = authority.issue("pool")
        yield [stack.enter_context(tls_server(issued)) for _ in range(2)]


@contextmanager
def envoy(servers, **tls):
    ports = free_ports()
    address = ", ".join(f"127.0.0.1:{port}" for port in servers)
    pool = {"name": "long", "max_model_len": 8192, "address": address, **tls}
    listen = {"listen": f"127.0.0.1:{ports.listener}", "admin": f"127.0.0.1:{ports.admin}"}
    text = render_envoy(Settings.model_validate({"pools": [pool], "envoy": listen}))
    with serving(yaml.safe_load(text), ports.admin):
        yield f"http://127.0.0.1:{ports.listener}"


def test_requests_go_to_every_server_over_tls(authority, servers):
    with envoy(servers, tls_ca=str(authority.file)) as url:
        found = set()

        def all_answer():
            found.add(int(fetch(f"{url}/v1/models").body))
            return found == set(servers)

        wait_for(all_answer)


def test_a_server_with_another_name_is_not_trusted(authority, servers):
    tls = {"tls_ca": str(authority.file), "tls_name": "pools.example"}
    with envoy(servers, **tls) as url:
        assert fetch(f"{url}/v1/models").status == 503
