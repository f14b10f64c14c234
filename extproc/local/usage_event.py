"""What a stream says beside its usage: to compare one that was asked for it with one that was not.

The service asks streams for usage that their clients did not ask for, and Envoy takes the event out
again. vLLM tells its fingerprint in the usage event, or where there is none, in the one before it.
"""

import re
from typing import Final

_USAGE: Final = re.compile(rb'"choices"\s*:\s*\[\s*\].*"usage"\s*:\s*\{', re.DOTALL)
_FINGERPRINT: Final = re.compile(rb',"system_fingerprint":"[^"]*"')


def less_usage(stream: bytes) -> bytes:
    """Return the events of a stream without usage and fingerprint."""
    events = (event for event in stream.split(b"\n\n") if not _USAGE.search(event))
    return _FINGERPRINT.sub(b"", b"\n\n".join(events))
