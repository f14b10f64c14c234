"""Ask for the usage of a streamed answer, in the client's own bytes."""

from typing import Final

ASKED: Final = b'"stream_options":{"include_usage":true},'


def ask_for_usage(body: bytes) -> bytes:
    """Return the body with `stream_options` as its first field; every other byte stays.

    The body is a JSON object with a field or more, and without one of that name.
    """
    start = body.index(b"{") + 1
    return body[:start] + ASKED + body[start:]
