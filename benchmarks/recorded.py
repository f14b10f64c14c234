"""The service's own answers to one small request, which the servers that decide nothing repeat.

They are those of a service that has learnt nothing, so its answer is wanted: each request has both
streams with such a server.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.bodies import KIB, text_body
from benchmarks.engine import Engine
from benchmarks.messages import request_messages
from extproc.config.settings import Settings

_REQUEST_HEADERS: Final = 0x12
_REQUEST_BODY: Final = 0x22
"""First bytes of messages: fields 2 and 4, with a length."""


@contextmanager
def recorded_answers() -> Iterator[Path]:
    """Record the answers in a file in the format of `native/raw_null.c`; needs a running loop."""
    replies = Engine(Settings()).decide(request_messages(text_body(KIB).data))
    kinds = (_REQUEST_HEADERS, _REQUEST_BODY)
    with tempfile.NamedTemporaryFile() as file:
        for kind, reply in zip(kinds, replies, strict=True):
            file.write(bytes((kind,)) + len(reply).to_bytes(4) + reply)
        file.flush()
        yield Path(file.name)
