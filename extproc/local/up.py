"""`dualpool up`: runs the local stack until a signal."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack

import aiohttp
from rich.console import Console
from rich.table import Table

from extproc.local.fleet import StackPool
from extproc.local.stack import Stack, StackGateway, StackOptions
from extproc.output import report_console
from extproc.progress import showing

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WIDEST = 1000


def run_up(options: StackOptions) -> int:
    """Run the stack until a signal; return the exit code."""
    # A signal is how `up` ends, so it is no failure.
    return run_stoppable(lambda: _up(options, report_console()), when_stopped=0)


def run_stoppable(main: Callable[[], Coroutine[None, None, int]], *, when_stopped: int) -> int:
    """Run `main`, which the first SIGINT, SIGTERM or SIGHUP cancels; return the exit code.

    Further signals do not interrupt its clean-up.
    """
    return asyncio.run(_stoppable(main(), when_stopped))


async def _stoppable(main: Coroutine[None, None, int], when_stopped: int) -> int:
    task = asyncio.ensure_future(main)

    def stop() -> None:
        if not task.cancelling():
            task.cancel()

    for number in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        return when_stopped


async def _up(options: StackOptions, console: Console) -> int:
    async with AsyncExitStack() as exits:
        session = await exits.enter_async_context(aiohttp.ClientSession())
        with showing(console) as show:
            stack = await exits.enter_async_context(Stack(options, session, show.say))
            pools = await stack.open_pools()
            gateway = await stack.open_gateway(pools, [pool.upstream for pool in pools])
        print_addresses(console, gateway, pools)
        await stack.unless_ended(asyncio.Event().wait())
    return 0


def print_addresses(console: Console, gateway: StackGateway, pools: Sequence[StackPool]) -> None:
    """Print where the parts of a running stack can be reached."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("OpenAI API", f"{gateway.url}/v1", f"model {pools[0].model}")
    for pool in pools:
        kind = "simulated" if pool.simulated else "real"
        table.add_row(f"pool {pool.name}", pool.url, f"{pool.max_model_len} tokens, {kind}")
    table.add_row("page", f"{gateway.service_url}/", "what it decides and learns, live")
    table.add_row("service", gateway.service_url, "/metrics /healthz /readyz /state")
    table.add_row("Envoy admin", gateway.admin_url, "/stats /clusters")
    table.add_row("access log", str(gateway.envoy.output.path()), "one line of JSON per request")
    table.add_row("service log", str(gateway.service.log.path()))
    console.print(table, soft_wrap=True, width=_WIDEST)  # paths are whole, also in a pipe
    service = gateway.service_url.removeprefix("http://")
    console.print(f"To look for what is wrong: dualpool doctor --service {service}", soft_wrap=True)
    console.print("Press Ctrl-C to stop.")
