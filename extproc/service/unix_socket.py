"""The file of a Unix socket: who may connect, and whether another server lives behind it.

gRPC removes a file in its way without asking whose it is, and its own when it stops to listen.
"""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UMASK = 0o117  # leaves rw-rw----: to connect is to write
_PATIENCE_S = 1.0


def require_free(path: Path) -> None:
    """Raise OSError where no socket can be made at `path`; what a dead server left does no harm."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise OSError(f"{path.parent} is no folder; make it, or choose another path") from None
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(f"{path} is not a socket; remove it, or choose another path")
    if _is_answered(path):
        raise OSError(f"a server listens on {path}; end it, or choose another path")


@contextmanager
def for_owner_and_group() -> Iterator[None]:
    """Make the files made meanwhile, by any thread, open to their owner and group alone."""
    before = os.umask(_UMASK)
    try:
        yield
    finally:
        os.umask(before)


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PATIENCE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except (TimeoutError, BlockingIOError):  # its queue is full
            return True
    return True
