"""The listening sockets of an address: host:port or unix:/path.

A host is resolved here, once, at the start: the event loop would start four threads for it.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from extproc.config.addresses import host_port
from extproc.service.unix_socket import for_owner_and_group

BACKLOG: Final = 1024
"""Connections that are not yet accepted."""


def socket_path(address: str) -> Path | None:
    """Return the path of a Unix socket; None for another address."""
    return Path(address.removeprefix("unix:")) if address.startswith("unix:") else None


def open_sockets(address: str) -> list[socket.socket]:
    """Return listening sockets, one for each address of the host. Raises OSError."""
    if path := socket_path(address):
        path.unlink(missing_ok=True)  # a dead server's, which `reserve` has made sure of
        return [_bound(path)]
    return open_ports(*host_port(address))


def open_ports(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on one port, one for each address of the host. Raises OSError."""
    sockets: list[socket.socket] = []
    # Bytes, as for text Python would load its tables of international names.
    name = host.encode("ascii")
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, place in dict.fromkeys(found):
        if sockets:
            port = sockets[0].getsockname()[1]
        with _unless_absent(last=place == found[-1][-1] and not sockets):
            sockets.append(_listening(family, str(place[0]), port))
    return sockets


def why_not(address: str) -> OSError:
    """Return why a server that does not say it cannot listen on an address."""
    try:
        sockets = open_sockets(address)
    except OSError as error:
        return error
    for each in sockets:
        each.close()
    return OSError("no reason is known")


def cannot_listen(address: str, use: str, error: OSError) -> OSError:
    """Return the error of an address for gRPC or HTTP: the system's reason, and the fix."""
    key = f"listen.{use.lower()}"
    match error:
        case socket.gaierror():
            fix = f"change {key} to a host that this machine can resolve, or to its IP address"
        case OSError(errno=errno.EADDRNOTAVAIL):
            fix = f"change {key} to an address of this machine"
        case OSError(errno=errno.EADDRINUSE):
            fix = f"stop what listens there, or change {key}"
        case _:
            fix = f"change {key}"
    return OSError(f"cannot listen on {address} for {use}: {_reason(error)}; {fix}")


def _reason(error: OSError) -> str:
    # Without the address, which Python adds to the words of the system.
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _bound(path: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    try:
        with for_owner_and_group():
            one.bind(str(path))
    except OSError:
        one.close()
        raise
    return one


def _listening(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    dual = family == socket.AF_INET6 and host == "::"
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=dual)


@contextmanager
def _unless_absent(*, last: bool) -> Iterator[None]:
    """Skip an address that this machine does not have, as localhost's ::1 may be."""
    try:
        yield
    except OSError as error:
        if last or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
