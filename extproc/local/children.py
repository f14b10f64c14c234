"""The child processes of the local stack.

Invariant: no child outlives its owner, even if that is killed; the kernel ends it (tether.py).
Each child leads its own process group, so that Ctrl-C reaches only the owner, and logs to an
unnamed file, so that nothing is left on disk, or to files of a folder that the user names.
"""

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from extproc.config.errors import UserError

_TETHER = Path(__file__).with_name("tether.py")
_TAIL_BYTES = 16_384


class StackError(UserError):
    """The local stack cannot start or has failed; the text says what to do about it."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name in messages, its arguments, and its grace period after SIGTERM.

    writes: what it writes to standard output, for the name of a file.
    """

    name: str
    argv: tuple[str, ...]
    grace_s: float = 5.0
    writes: str = "output"


class Log:
    """A file that a child writes and its owner reads; unnamed, unless a path is given."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        # Both live as long as the child.
        self._file: IO[bytes] = path.open("w+b") if path else tempfile.TemporaryFile()  # noqa: SIM115

    def fileno(self) -> int:
        """Return the file descriptor that a child writes to."""
        return self._file.fileno()

    def path(self) -> Path:
        """Return a path by which other processes can open it while this process lives."""
        return self._path or Path(f"/proc/{os.getpid()}/fd/{self.fileno()}")

    def read(self, start: int = 0) -> bytes:
        """Return all bytes from offset `start` on; does not move a read position."""
        size = os.fstat(self.fileno()).st_size
        return os.pread(self.fileno(), max(0, size - start), start)

    def tail(self, lines: int) -> str:
        """Return the last lines as text."""
        size = os.fstat(self.fileno()).st_size
        text = self.read(max(0, size - _TAIL_BYTES)).decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def write(self, text: str) -> None:
        """Append text."""
        self._file.write(text.encode())
        self._file.flush()

    def close(self) -> None:
        """Close the file; it is deleted when its last user has closed it."""
        self._file.close()


class Child:
    """One running process with its log (stderr) and its output (stdout)."""

    def __init__(
        self, command: Command, process: asyncio.subprocess.Process, log: Log, output: Log
    ) -> None:
        self.command = command
        self.log = log
        self.output = output
        self._process = process

    @property
    def name(self) -> str:
        """The command's name."""
        return self.command.name

    @property
    def pid(self) -> int:
        """The process id, which is also its process group id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.returncode is None

    async def ended(self) -> int:
        """Wait until it has ended; return its exit status, or the negated signal number."""
        return await self._process.wait()

    def describe_end(self) -> str:
        """Return how it ended, with the last lines of its log."""
        code = self._process.returncode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"{self.name} ended with {how}.{self.quote_log()}"

    def quote_log(self, lines: int = 12) -> str:
        """Return the last lines that it wrote, indented, each after a newline."""
        text = self.log.tail(lines) or self.output.tail(lines)
        return "".join(f"\n    {line}" for line in text.splitlines())

    async def stop(self) -> None:
        """Send SIGTERM, wait for the grace period, then SIGKILL its whole process group."""
        if self.running:
            # Process.terminate polls, which could take the exit status from asyncio's watcher.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self.command.grace_s)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()


class Children:
    """Owns all child processes; call stop in a `finally`. Their logs stay in `folder`, if any."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._children: list[Child] = []

    async def stop(self) -> None:
        """Stop all of them at once, each with its own grace period."""
        await asyncio.gather(*(child.stop() for child in self._children))
        for child in self._children:
            child.log.close()
            child.output.close()

    async def start(self, command: Command) -> Child:
        """Start a command."""
        log, output = (
            self._log(f"{command.name}.log"),
            self._log(f"{command.name}-{command.writes}.log"),
        )
        # -I -S: without site-packages the interpreter starts in milliseconds; tether.py needs none.
        argv = (sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *command.argv)
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output.fileno(),
            stderr=log.fileno(),
            start_new_session=True,
        )
        child = Child(command, process, log, output)
        self._children.append(child)
        return child

    def _log(self, name: str) -> Log:
        return Log(self._folder / name.replace(" ", "-") if self._folder else None)

    async def first_end(self) -> Child:
        """Wait until any child has ended; return it."""
        # With real pools no child runs yet while they are waited for.
        if not self._children:
            await asyncio.Event().wait()
        waiting = {asyncio.ensure_future(child.ended()): child for child in self._children}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        return waiting[next(iter(done))]

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of all children."""
        return tuple(child.pid for child in self._children)
