"""Says in words why a server did not answer, instead of the name of aiohttp's exception."""

import os
from typing import Final

import aiohttp

_WORDS: Final = {
    TimeoutError: "no answer in time",
    aiohttp.ServerDisconnectedError: "the server closed the connection before it answered",
    aiohttp.ClientPayloadError: "the connection ended in the middle of the answer",
}


def describe(error: aiohttp.ClientError | TimeoutError) -> str:
    """Return what happened to a request: `connection refused`, `no answer in time`, ..."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host {error.host} is unknown"
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno:
        return os.strerror(error.errno).lower()
    known = (words for kind, words in _WORDS.items() if isinstance(error, kind))
    return next(known, str(error) or "the connection failed")
