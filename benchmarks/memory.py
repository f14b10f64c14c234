"""Section memory: what the service holds idle, after large bodies, and for silent peers."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
from rich.table import Table

from benchmarks.bodies import MIB, text_body
from benchmarks.client import Load, run_load
from benchmarks.forms import FormRow, unchanged
from benchmarks.peer import PeerConnection, connect
from benchmarks.requests import SERVED, left_out, usable_services
from benchmarks.rig import Rig, Service, rss_kib
from benchmarks.run import Plan, Result, Tools, new_table, rotated, spread
from extproc.config.settings import Form, Transport
from extproc.progress import Show
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.transport import frames

_SILENT: Final = 50
_PIECE_BYTES: Final = 16_000
_PIECES: Final = {Transport.GRPC: 4, Transport.H2: 250}  # what the window of a stream has room for
_SETTLE_S: Final = 1.0
_CONNECTIONS: Final = 64
_IMPORTS: Final = {
    "asyncio": "asyncio, with OpenSSL",
    "uvloop": "uvloop",
    "msgspec": "msgspec",
    "yaml": "PyYAML",
    "prometheus_client": "prometheus_client",
    "numpy": "numpy",
    "google.protobuf.message": "protobuf",
    "extproc.cli": "the command line",
    "extproc.service.serve": "the service's own modules, h11, hpack",
}
_IMPORTING: Final = """
import importlib, sys
def resident():
    with open("/proc/self/status") as file:
        print(next(line.split()[1] for line in file if line.startswith("VmRSS")))
resident()
for name in sys.argv[1:]:
    importlib.import_module(name)
    resident()
"""
_FORM: Final = FormRow("default", Form.AUTO, unchanged)
_METHOD: Final = f"""\
Resident memory in MiB, median [lowest, highest] of the rounds. Bodies of 1 MB: on {_CONNECTIONS}
connections through Envoy, and then none. Silent peers: {_SILENT} that send pieces of an answer for
the service to send back, and give it no window.
The second table imports what an idle service with the transport h2 has imported from its sources,
one after the other: what several of them need counts for the first.
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """MiB of one service in one round, in a new process for each of the two burdens."""

    idle: float
    large: float
    silent: float


async def measure(plan: Plan, tools: Tools, show: Show) -> Result:
    """Measure both transports, from the sources and compiled."""
    services = usable_services()
    found: dict[str, list[Figures]] = {name: [] for name in services}
    show.begin("memory", plan.rounds * len(services))
    async with aiohttp.ClientSession() as session:
        for number in range(plan.rounds):
            for name in rotated(tuple(services), number):
                found[name].append(await _measure(session, plan, tools, services[name]))
                show.advance()
    imported = [await _import() for _ in range(plan.rounds)]
    missing = left_out(tuple(SERVED), tools)
    tables = (_table(found), _import_table(imported))
    return Result((*tables, *missing, _METHOD), {"services": found, "imports": imported})


async def _measure(
    session: aiohttp.ClientSession, plan: Plan, tools: Tools, service: Service
) -> Figures:
    async with Rig(session, service, pool=tools.pool) as rig:
        idle = rss_kib(rig.server.pid)
        async with rig.gateway(_FORM) as gateway:
            load = Load(4 if plan.quick else _CONNECTIONS)
            await run_load(tools.client, gateway.port, text_body(MIB), load, 3 * plan.seconds)
            await asyncio.sleep(_SETTLE_S)
            large = rss_kib(rig.server.pid)
    async with Rig(session, service, pool=tools.pool) as rig:
        peers = [await _do_not_read(rig.grpc_port, service.transport) for _ in range(_SILENT)]
        await asyncio.sleep(_SETTLE_S)
        silent = rss_kib(rig.server.pid)
        for peer in peers:
            peer.abort()
    return Figures(idle / 1024, large / 1024, silent / 1024)


async def _import() -> dict[str, float]:
    """Return the MiB that each import adds in a new process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _IMPORTING, *_IMPORTS), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    before, names = 0.0, ("Python itself", *_IMPORTS.values())
    added = dict[str, float]()
    for name, kib in zip(names, map(int, out.split()), strict=True):
        added[name] = kib / 1024 - before
        before = kib / 1024
    return added


async def _do_not_read(port: int, transport: Transport) -> PeerConnection:
    peer = await connect(port, {frames.INITIAL_WINDOW_SIZE: 0})
    head = ProcessingRequest(response_headers={})
    head.protocol_config.response_body_mode = ProcessingMode.FULL_DUPLEX_STREAMED
    peer.open([1], head.SerializeToString())
    piece = ProcessingRequest(response_body={"body": bytes(_PIECE_BYTES)}).SerializeToString()
    for _ in range(_PIECES[transport]):
        peer.send(1, piece)
    return peer


def _table(found: Mapping[str, Sequence[Figures]]) -> Table:
    columns = ("idle", "after bodies of 1 MB", "with silent peers")
    table = new_table("Memory of the service, MiB", "", columns)
    for name, rounds in found.items():
        table.add_row(
            name,
            spread([each.idle for each in rounds], ".1f"),
            spread([each.large for each in rounds], ".1f"),
            spread([each.silent for each in rounds], ".1f"),
        )
    return table


def _import_table(rounds: Sequence[Mapping[str, float]]) -> Table:
    table = new_table("Memory that imports take, MiB", "", ("added", "together"))
    together = [0.0] * len(rounds)
    for name in rounds[0]:
        added = [each[name] for each in rounds]
        together = [sum(pair) for pair in zip(together, added, strict=True)]
        table.add_row(name, spread(added, ".1f"), spread(together, ".1f"))
    return table
