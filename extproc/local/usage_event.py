"""Removes the usage event from a stream, to compare the pool's side with the client's.

The service asks for usage that a client did not request, and Envoy removes the event again. vLLM
puts its fingerprint into the usage event or, without one, into the event before.
"""

import re
from typing import Final

# Only the usage event has no choices.
_USAGE: Final = re.compile(rb'"choices"\s*:\s*\[\s*\].*"usage"\s*:\s*\{', re.DOTALL)
_FINGERPRINT: Final = re.compile(rb',"system_fingerprint":"[^"]*"')


def less_usage(stream: bytes) -> bytes:
    """Return a stream without its usage event and fingerprint."""
    events = (event for event in stream.split(b"\n\n") if not _USAGE.search(event))
    return _FINGERPRINT.sub(b"", b"\n\n".join(events))
