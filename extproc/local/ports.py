"""The ports of the local stack: the fixed ones, or any free ones."""

import secrets
import socket
from dataclasses import dataclass

from extproc.local.children import StackError


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on 127.0.0.1; `pools` are those of the simulated pools."""

    listener: int = 10000
    admin: int = 9901
    grpc: int = 50051
    http: int = 8081
    pools: tuple[int, ...] = (8101, 8102)


def free_ports() -> Ports:
    """Return ports that are free now."""
    found: dict[int, None] = {}
    while len(found) < 6:
        # Below the range that the kernel uses for outgoing connections.
        port = 20_000 + secrets.randbelow(12_000)
        if _is_free(port):
            found[port] = None
    listener, admin, grpc, http, *pools = found
    return Ports(listener, admin, grpc, http, tuple(pools))


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
        if not _is_free(port):
            raise StackError(
                f"port {port} ({use}) is taken: stop the process that listens there, or use "
                "--ports auto"
            )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
