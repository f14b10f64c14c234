"""Addresses of the settings: their patterns, and the parts and ports that follow from them."""

import re
from urllib.parse import urlsplit

MAX_SOCKET_PATH_BYTES = 107  # unix(7): sun_path holds 108, the last of them NUL
_NAME = r"([A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]):"
_PORT = r"([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
HOST_PORT = _NAME + _PORT
# Of a server to connect to: port 0 is none.
SERVER = rf"{_NAME}(?!0+(?![0-9])){_PORT}"
# Plain ASCII on one line, without the % that gRPC decodes: unix:/a%41 listens on /aA.
UNIX_PATH = r"unix:/[A-Za-z0-9_.,@+=~/-]*[A-Za-z0-9_.,@+=~-]"
_LOOPBACK = r"127(\.[0-9]{1,3}){3}"
STORE_USER = r"[A-Za-z0-9._~-]{1,64}"
# Of the servers that Sentinels watch; they permit the same.
MASTER_NAME = r"[A-Za-z0-9._-]{1,64}"
HOST = r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?"
ANY_HOST = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared with, never bound
"""The hosts that stand for all addresses of a machine."""


def http_url(text: str) -> str:
    """Return the URL of a server; HOST:PORT gets http://. Raises ValueError, with what is wrong."""
    url = text if "://" in text else f"http://{text}"
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not an HTTP address")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port is not a number from 1 to 65535") from None
    if port == 0 or (port is None and url is not text):
        raise ValueError("the port is missing" if port is None else "port 0 is none")
    return url


def host_port(address: str) -> tuple[str, int]:
    """Split HOST:PORT of valid settings; an IPv6 host loses its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def with_port(address: str, port: int) -> str:
    """Return the address with the port that a server got; of a Unix socket the path alone."""
    if address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{port}"


def is_of_this_machine(address: str) -> bool:
    """Return whether nothing outside this machine reaches it: a Unix socket, or loopback."""
    if address.startswith("unix:"):
        return True
    host, _ = host_port(address)
    return host in ("localhost", "::1") or re.fullmatch(_LOOPBACK, host) is not None


def worker_addresses(grpc: str, workers: int) -> tuple[str, ...]:
    """Each worker's gRPC address: the ports that follow (0 stays 0), or PATH.0, PATH.1 ..."""
    if workers == 1:
        return (grpc,)
    if grpc.startswith("unix:"):
        return tuple(f"{grpc}.{number}" for number in range(workers))
    host, _, port = grpc.rpartition(":")
    return tuple(f"{host}:{int(port) and int(port) + number}" for number in range(workers))
