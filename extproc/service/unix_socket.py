"""The file of a Unix socket: who may connect, and whether another server listens on it.

gRPC removes any file at its path when it starts, and its own file when it stops.
"""

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UMASK = 0o117  # leaves rw-rw----: to connect is to write
_PATIENCE_S = 1.0
_CLOSED = -1


class PathLock:
    """Keeps other servers of this program from the path of a socket until it is released.

    The kernel releases it when the process ends, however it ends.
    """

    def __init__(self, path: Path) -> None:
        """Lock the path. Raises OSError if another server holds it, or it cannot be locked."""
        self._file = path.with_name(f"{path.name}.lock")
        self._descriptor = _open(self._file)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = _is_at(self._file, self._descriptor)
        except BlockingIOError:
            held = False
        # A server that ends removes its file, so the lock may be one of a file that is gone.
        if not held:
            os.close(self._descriptor)
            self._descriptor = _CLOSED
            raise OSError(_taken(path))

    def release(self) -> None:
        """Let another server have the path; idempotent."""
        if self._descriptor != _CLOSED:
            self._file.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = _CLOSED


def reserve(path: Path) -> PathLock:
    """Lock a path on which no server listens. Raises OSError if a socket there is impossible."""
    require_free(path)
    # Once more under the lock: another server may have begun to listen since. Before it, so that no
    # lock file is made beside a path that cannot be used.
    lock = PathLock(path)
    try:
        require_free(path)
    except OSError:
        lock.release()
        raise
    return lock


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
        raise OSError(_taken(path))


@contextmanager
def for_owner_and_group() -> Iterator[None]:
    """Let only owner and group access the files that any thread creates meanwhile."""
    before = os.umask(_UMASK)
    try:
        yield
    finally:
        os.umask(before)


def _taken(path: Path) -> str:
    fix = "stop it, or choose another path; several replicas need a TCP port and TLS"
    return f"another server listens on {path}; {fix}"


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


def _open(file: Path) -> int:
    try:
        with for_owner_and_group():
            # O_NOFOLLOW: in a shared folder another user could have put a link to some file of ours
            # here. O_CLOEXEC: a child that inherits the descriptor would keep the lock.
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)
    except OSError as error:
        raise OSError(f"{file}: {error.strerror}; choose another path") from error


def _is_at(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
