"""gRPC over HTTP/2 without sockets: bytes of a connection in, bytes out."""
