"""A minimal HTTP/2 peer (RFC 9113) that can send what client libraries do not."""

import socket
import struct
from contextlib import contextmanager

from extproc.service.streams import SERVICE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS, PING, GOAWAY = 1, 4, 6, 7
ACK = 1
END_HEADERS = 4


def frame(kind, payload=b"", *, flags=0, stream=0):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def request_headers():
    """Return the HEADERS frame of an ext_proc stream, with HPACK literals without indexing."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{SERVICE}/Process",
        ":authority": "peer",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(b"\0" + text(name) + text(value) for name, value in fields.items())
    return frame(HEADERS, block, flags=END_HEADERS, stream=1)


def text(value):
    return bytes([len(value)]) + value.encode()


@contextmanager
def connected(port):
    """Yield a socket on which nothing has been sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        yield peer


def greet(peer):
    peer.sendall(PREFACE + frame(SETTINGS))


def frames(peer):
    """Yield (kind, flags, payload) of each frame until the server closes the connection."""
    with peer.makefile("rb") as stream:
        while len(head := stream.read(9)) == 9:
            size = int.from_bytes(head[:3])
            yield head[3], head[4], stream.read(size)
