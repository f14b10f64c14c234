"""The file of a Unix socket: who may connect, and whether another server listens on it.

gRPC removes any file at its path when it starts, and its own file when it stops.
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
    """Raise OSError if a socket at `path` is impossible; the file of a dead server is not."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            fault = f"{path.parent} is not a folder; create it, or choose another path"
            raise OSError(fault) from None
        return
    except OSError as error:
        raise OSError(f"{path}: {error.strerror}; choose another path") from error
    if not stat.S_ISSOCK(mode):
        raise OSError(f"{path} is not a socket; remove it, or choose another path")
    if _is_answered(path):
        raise OSError(f"another server listens on {path}; stop it, or choose another path")


@contextmanager
def for_owner_and_group() -> Iterator[None]:
    """Let only owner and group access the files that any thread creates meanwhile."""
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
        except PermissionError:  # another user's: it may be in use
            return True
    return True
