"""The ports of the local stack: the fixed ones, or any free ones."""

import secrets
import socket
from dataclasses import dataclass

from extproc.config.addresses import ANY_HOST
from extproc.config.errors import UserError
from extproc.local.children import StackError

LOCALHOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on 127.0.0.1; `pools` are those of the simulated pools.

    listener_host: where Envoy's listener is bound, if not on 127.0.0.1.
    listener_given: whether --listen gave it.
    """

    listener: int = 10000
    admin: int = 9901
    grpc: int = 50051
    http: int = 8081
    pools: tuple[int, ...] = (8101, 8102)
    listener_host: str = LOCALHOST
    listener_given: bool = False

    @property
    def url(self) -> str:
        """The URL of Envoy's listener, as this machine reaches it."""
        host = LOCALHOST if self.listener_host in ANY_HOST else self.listener_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.listener}"


def fixed_ports(pools: int) -> Ports:
    """Return the default ports for a number of simulated pools: 8101, 8102 ..."""
    return Ports(pools=tuple(range(8101, 8101 + pools)))


def read_ports(text: str, pools: int) -> Ports:
    """Parse `--ports N,N,N,N,N...`: one for each part in the order of Ports; raises UserError."""
    words = text.split(",")
    numbers = [int(word) for word in words if word.isascii() and word.isdecimal()]
    valid = [number for number in numbers if 0 < number < 65536]
    if not len(words) == len(set(valid)) == 4 + pools:
        raise UserError(
            f"--ports: {text!r} is not allowed: fixed, auto, or {4 + pools} different ports with "
            f"commas: Envoy, its admin, the service's gRPC and HTTP, and {pools} simulated pools"
        )
    listener, admin, grpc, http, *rest = valid
    return Ports(listener, admin, grpc, http, tuple(rest))


def read_listener(text: str) -> tuple[str, int]:
    """Parse `--listen HOST:PORT`; raises UserError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--listen: {text!r} is not HOST:PORT")
    return host, int(port)


def some_port() -> int:
    """Return a port, maybe taken, below those that the kernel uses for outgoing connections.

    There, a client that asks again and again whether a server listens yet sometimes gets its port
    for its own, and is connected to itself.
    """
    return 20_000 + secrets.randbelow(12_000)


def free_ports(pools: int = 2) -> Ports:
    """Return ports that are free now, for this number of simulated pools."""
    found: dict[int, None] = {}
    while len(found) < 4 + pools:
        port = some_port()
        if _is_free(port):
            found[port] = None
    listener, admin, grpc, http, *rest = found
    return Ports(listener, admin, grpc, http, tuple(rest))


def require_free(ports: Ports, *, with_pools: bool) -> None:
    """Raise StackError if one of the ports is taken."""
    uses = {
        "Envoy's listener": ports.listener,
        "Envoy's admin": ports.admin,
        "the service's gRPC": ports.grpc,
        "the service's HTTP": ports.http,
    }
    if with_pools:
        uses |= {f"pool {number}": port for number, port in enumerate(ports.pools, 1)}
    for use, port in uses.items():
        is_listener = port == ports.listener
        host = ports.listener_host if is_listener else LOCALHOST
        if not _is_free(port, host):
            option = "another --listen" if is_listener and ports.listener_given else "--ports auto"
            raise StackError(
                f"port {port} ({use}) is taken: stop the process that listens there, or use "
                f"{option}"
            )


def _is_free(port: int, host: str = LOCALHOST) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do: old connections in TIME_WAIT do not take a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
