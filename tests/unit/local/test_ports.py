import socket

import pytest

from extproc.local.children import StackError
from extproc.local.ports import Ports, free_ports, require_free


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


def test_the_pools_ports_do_not_matter_to_real_pools():
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = free_ports()
        taken = Ports(
            ports.listener, ports.admin, ports.grpc, ports.http, (server.getsockname()[1],)
        )
        require_free(taken, with_pools=False)
        with pytest.raises(StackError, match="pool 1"):
            require_free(taken, with_pools=True)
