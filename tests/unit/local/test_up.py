"""Running until a signal, and what `dualpool up` prints; the whole stack is in the integration."""

import asyncio
import io
import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest
from rich.console import Console

from extproc.local.children import Child, Command, Log, StackError
from extproc.local.fleet import StackPool
from extproc.local.stack import StackGateway
from extproc.local.up import print_addresses, run_stoppable

POOLS = (
    StackPool("short", "http://127.0.0.1:8101", "tiny", 8192, simulated=True),
    StackPool("long", "http://127.0.0.1:8102", "tiny", 65_536, simulated=False),
)


@pytest.fixture
def printed() -> Iterator[str]:
    with closing(Log()) as access, closing(Log()) as log:
        envoy = Child(Command("envoy", ()), None, log, access)
        service = Child(Command("service", ()), None, log, access)
        gateway = StackGateway("http://h:10000", "http://h:9901", "http://h:8081", envoy, service)
        out = io.StringIO()
        print_addresses(Console(file=out, width=200), gateway, POOLS)
        yield " ".join(out.getvalue().split())


@pytest.mark.parametrize("status", [0, 1])
def test_the_exit_code_is_that_of_the_command(status):
    async def main() -> int:
        return status

    assert run_stoppable(main, when_stopped=130) == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_command(number):
    async def main() -> int:
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()
        return 0

    assert run_stoppable(main, when_stopped=130) == 130


def test_a_second_signal_does_not_disturb_the_clean_up():
    ended = []

    async def main() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0)
            ended.append(True)
        return 0

    assert run_stoppable(main, when_stopped=130) == 130
    assert ended == [True]


def test_a_fault_of_the_stack_is_left_to_the_command_line():
    async def main() -> int:
        raise StackError("port 1 is taken")

    with pytest.raises(StackError, match="port 1 is taken") as caught:
        run_stoppable(main, when_stopped=0)
    assert caught.value.exit_code == 1


def test_a_fault_of_ours_is_not_hidden():
    async def main() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_stoppable(main, when_stopped=0)


@pytest.mark.parametrize(
    "text",
    [
        "http://h:10000/v1 model tiny",
        "pool short http://127.0.0.1:8101 8192 tokens, simulated",
        "pool long http://127.0.0.1:8102 65536 tokens, real",
        "service http://h:8081 /metrics /healthz /readyz /state",
        "Envoy admin http://h:9901",
        "To look for what is wrong: dualpool doctor --service h:8081",
        "Press Ctrl-C to stop.",
    ],
)
def test_the_addresses_are_printed(text, printed):
    assert text in printed


def test_the_logs_are_printed_as_paths_that_can_be_opened(printed):
    assert f"access log /proc/{os.getpid()}/fd/" in printed
    assert f"service log /proc/{os.getpid()}/fd/" in printed
