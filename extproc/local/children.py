"""The child processes of the local stack; none of them outlives their owner.

Each child is tethered to this process (tether.py), leads its own process group, so that
Ctrl-C reaches the owner alone, and logs to a file without a name, so that nothing is left on
the disk, whoever is killed.
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

_TETHER = Path(__file__).with_name("tether.py")
_TAIL_BYTES = 16_384


class StackError(Exception):
    """The local stack cannot come up or has come down; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: a name for messages, the arguments, and the most seconds it has to end."""

    name: str
    argv: tuple[str, ...]
    patience_s: float = 5.0


class Log:
    """A file without a name that a child writes to and its owner reads."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child

    def fileno(self) -> int:
        """Return the descriptor that a child writes to."""
        return self._file.fileno()

    def path(self) -> Path:
        """Return a path under which other processes can open it while this one lives."""
        return Path(f"/proc/{os.getpid()}/fd/{self.fileno()}")

    def read(self, start: int = 0) -> bytes:
        """Return all bytes from `start` on, whatever was read before."""
        size = os.fstat(self.fileno()).st_size
        return os.pread(self.fileno(), max(0, size - start), start)

    def tail(self, lines: int) -> str:
        """Return the last lines as text."""
        size = os.fstat(self.fileno()).st_size
        text = self.read(max(0, size - _TAIL_BYTES)).decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def write(self, text: str) -> None:
        """Add text at the end."""
        self._file.write(text.encode())
        self._file.flush()

    def close(self) -> None:
        """Give the file up; its bytes vanish with its last user."""
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
        """The process id, which is its process group's as well."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.returncode is None

    async def ended(self) -> int:
        """Wait for the end and return the exit status (negative: the signal)."""
        return await self._process.wait()

    def describe_end(self) -> str:
        """Say how it ended, with the last lines of its log."""
        code = self._process.returncode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"{self.name} ended with {how}.{self.quote_last_words()}"

    def quote_last_words(self, lines: int = 12) -> str:
        """Return the last lines it wrote, each on a line of its own."""
        text = self.log.tail(lines) or self.output.tail(lines)
        return "".join(f"\n    {line}" for line in text.splitlines())

    async def stop(self) -> None:
        """End it: SIGTERM, then, after its patience, SIGKILL for its whole group."""
        if self.running:
            # Not Process.terminate: its poll could take the exit status from asyncio's watcher.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self.command.patience_s)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()


class Children:
    """The owner of all child processes; it must be stopped whatever happens."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    async def stop(self) -> None:
        """End all of them, however long each has patience."""
        await asyncio.gather(*(child.stop() for child in self._children))
        for child in self._children:
            child.log.close()
            child.output.close()

    async def start(self, command: Command) -> Child:
        """Run a command; raises StackError where it cannot be run at all."""
        log, output = Log(), Log()
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

    async def first_end(self) -> Child:
        """Wait until any child has ended and return it."""
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
