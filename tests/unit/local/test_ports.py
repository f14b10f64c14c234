import socket

import pytest

from extproc.config.errors import UserError
from extproc.local.children import StackError
from extproc.local.ports import (
    Ports,
    fixed_ports,
    free_ports,
    read_listener,
    read_ports,
    require_free,
)


def _all(ports: Ports) -> list[int]:
    return [ports.listener, ports.admin, ports.grpc, ports.http, *ports.pools]


def test_free_ports_are_free_and_different():
    ports = free_ports()
    require_free(ports, with_pools=True)
    assert len(set(_all(ports))) == 6


def test_a_taken_port_is_named_with_its_use_and_the_flag():
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(StackError) as error:
            require_free(Ports(listener=taken), with_pools=False)
    assert str(error.value) == (
        f"port {taken} (Envoy's listener) is taken: stop the process that listens there, or use "
        "--ports auto"
    )


def test_a_taken_port_that_listen_gave_needs_another_one():
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = Ports(listener=server.getsockname()[1], listener_given=True)
        with pytest.raises(StackError, match=r"Envoy's listener.* or use another --listen$"):
            require_free(taken, with_pools=False)


def test_the_pools_ports_do_not_matter_to_real_pools():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = free_ports()
        taken = Ports(
            ports.listener, ports.admin, ports.grpc, ports.http, (server.getsockname()[1],)
        )
        require_free(taken, with_pools=False)
        with pytest.raises(StackError, match="pool 1"):
            require_free(taken, with_pools=True)


def test_each_simulated_pool_has_a_port():
    assert fixed_ports(2) == Ports()
    assert fixed_ports(3).pools == (8101, 8102, 8103)
    assert len(free_ports(3).pools) == 3


def test_ports_of_ones_choice_are_read_in_order():
    assert read_ports("1,2,3,4,5,6,7", 3) == Ports(1, 2, 3, 4, (5, 6, 7))


@pytest.mark.parametrize("text", ["1,2,3,4,5", "1,2,3,4,5,5", "1,2,3,4,5,65536", "a,2,3,4,5,6", ""])
def test_ports_that_are_too_few_or_wrong_are_refused(text):
    with pytest.raises(UserError, match=r"--ports: .* or 6 different ports with commas"):
        read_ports(text, 2)


@pytest.mark.parametrize(
    ("text", "listener"),
    [("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:80", ("::1", 80)), ("a.b:80", ("a.b", 80))],
)
def test_a_listener_is_read(text, listener):
    assert read_listener(text) == listener


@pytest.mark.parametrize("text", ["80", ":80", "a:", "a:0", "a:65536", "a:b"])
def test_a_wrong_listener_is_refused(text):
    with pytest.raises(UserError, match=r"--listen: .* is not HOST:PORT"):
        read_listener(text)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:10000"),
        ("0.0.0.0", "http://127.0.0.1:10000"),
        ("::1", "http://[::1]:10000"),
    ],
)
def test_the_url_is_one_that_this_machine_reaches(host, url):
    assert Ports(listener_host=host).url == url


def test_the_listeners_own_host_is_probed():
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(StackError, match="Envoy's listener"):
            require_free(Ports(listener=port, listener_host="127.0.0.2"), with_pools=False)
