import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from extproc.local.children import Child, Children, Command, Log
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the local stack is for Linux")

Result = TypeVar("Result")

_SLEEPER = ("sleep", "60")
_STUBBORN = (
    sys.executable,
    "-c",
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)\n",
)
_OWNER = """
import asyncio, sys
from extproc.local.children import Children, Command

async def main():
    child = await Children().start(Command("sleeper", ("sleep", "60")))
    while b"sleep" not in open(f"/proc/{child.pid}/cmdline", "rb").read().split(b"\\0")[0]:
        await asyncio.sleep(0.01)
    print(child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _run(argv: tuple[str, ...], look: Callable[[Child], Result]) -> Result:
    async def run() -> Result:
        children = Children()
        child = await children.start(Command("thing", argv))
        await child.ended()
        seen = look(child)
        await children.stop()
        return seen

    return asyncio.run(run())


def test_a_log_with_a_path_stays_there(tmp_path):
    log = Log(tmp_path / "a.log")
    log.write("told")
    log.close()
    assert (log.path(), log.path().read_text()) == (tmp_path / "a.log", "told")


def test_an_end_is_described_with_the_last_words():
    argv = ("sh", "-c", "echo one >&2; echo two >&2; exit 3")
    assert _run(argv, Child.describe_end) == "thing ended with exit status 3.\n    one\n    two"


def test_a_signal_is_named():
    argv = ("sh", "-c", "kill -KILL $$")
    assert _run(argv, Child.describe_end) == "thing ended with signal SIGKILL."


def test_output_and_log_are_apart():
    argv = ("sh", "-c", "echo said; echo logged >&2")
    assert _run(argv, lambda child: (child.output.read(), child.log.read())) == (
        b"said\n",
        b"logged\n",
    )


def test_a_log_can_be_read_by_other_processes():
    argv = ("sh", "-c", "echo said")
    assert _run(argv, lambda child: child.output.path().read_bytes()) == b"said\n"


def test_stopping_ends_all_children():
    async def run():
        children = Children()
        await children.start(Command("one", _SLEEPER))
        await children.start(Command("two", _SLEEPER))
        await children.stop()
        return children.pids

    assert not any(map(_alive, asyncio.run(run())))


def test_a_child_that_ignores_sigterm_is_killed():
    async def run():
        children = Children()
        child = await children.start(Command("stubborn", _STUBBORN, grace_s=0.2))
        await until(child.output.read)
        await children.stop()
        return await child.ended()

    assert asyncio.run(run()) == -signal.SIGKILL


def test_a_childs_own_children_end_with_it():
    async def run():
        children = Children()
        child = await children.start(Command("shell", ("sh", "-c", "sleep 60 & echo $!; wait")))
        await until(child.output.read)
        grandchild = int(child.output.read())
        await children.stop()
        return grandchild

    grandchild = asyncio.run(run())
    asyncio.run(until(lambda: not _alive(grandchild)))


def test_the_first_end_is_seen():
    async def run():
        children = Children()
        await children.start(Command("long", _SLEEPER))
        short = await children.start(Command("short", ("true",)))
        first = await children.first_end()
        await children.stop()
        return first is short

    assert asyncio.run(run())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_children_die_with_their_owner(number):
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True)
    with owner:
        child = int(owner.stdout.readline())
        assert _alive(child)
        owner.send_signal(number)
    asyncio.run(until(lambda: not _alive(child)))
