"""Several processes as one service: one gRPC address each, one HTTP address for all.

The supervisor takes no streams. It starts the workers, replaces one that dies, passes what each
learns to the others, and answers HTTP for all: the metrics added up, and the state from a learner
of its own that hears every observation.
"""

import asyncio
import logging
import os
import sys
import tempfile
from collections import deque

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from extproc.budget.values import Observation
from extproc.build import build_learner
from extproc.config.settings import Settings, host_port, worker_addresses
from extproc.service.certificates import read_certificates
from extproc.service.http import Admin
from extproc.service.process import (
    Stop,
    build_state,
    certificate_files,
    first_of,
    log_end,
)
from extproc.service.worker import EMPTY, LINE_BYTES, Order, encode, send
from extproc.stream.metrics import LearntCollector

_REPLAYED = 4096  # observations told to a worker that starts late
_RESTART_S = 1.0
_KILL_S = 5.0  # beyond the end that it was given

_DECODER = msgspec.json.Decoder(Observation)
_log = logging.getLogger(__name__)


class Supervisor:
    """Runs settings.workers processes."""

    def __init__(self, settings: Settings) -> None:
        if files := certificate_files(settings.listen):
            read_certificates(files)  # one message, not one from each worker
        self._settings = settings
        self._addresses = worker_addresses(settings.listen.grpc, settings.workers)
        self._learner = build_learner(settings)
        self._recent: deque[bytes] = deque(maxlen=_REPLAYED)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._inputs: dict[int, asyncio.StreamWriter] = {}
        self._ready: set[int] = set()
        self._stopping = False

    async def run(self, stop: Stop) -> None:
        """Serve until `stop` is asked, then leave. Raises OSError where it cannot listen."""
        with tempfile.TemporaryDirectory(prefix="dualpool-") as folder:
            lengths = self._learner.lengths.to_json
            admin = Admin(self._registry(folder), self._state, lengths, self._is_ready)
            await admin.start(*host_port(self._settings.listen.http))
            count = self._settings.workers
            workers = [asyncio.create_task(self._keep(index, folder)) for index in range(count)]
            await first_of(stop.asked, *workers)
            if not stop.asked.is_set():  # a worker could not start
                stop.at_once.set()
            await self._leave(workers, stop)
            await admin.stop()
            for worker in workers:
                worker.result()

    async def _leave(self, workers: list[asyncio.Task[None]], stop: Stop) -> None:
        self._stopping = True
        listen = self._settings.listen
        for pipe in self._inputs.values():
            if not pipe.is_closing():
                pipe.write(EMPTY)
        ended = asyncio.gather(*workers, return_exceptions=True)
        if not stop.at_once.is_set():
            log_end(listen)
        patience_s = listen.notice_s + listen.drain_s + _KILL_S
        await first_of(stop.at_once, ended, timeout_s=patience_s)
        for pipe in self._inputs.values():
            pipe.close()
        await asyncio.wait([ended], timeout=_KILL_S)
        for process in self._processes.values():
            process.kill()
        await ended

    def _registry(self, folder: str) -> CollectorRegistry:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
        registry.register(LearntCollector(self._learner.learnt))
        return registry

    def _state(self) -> dict[str, object]:
        return build_state(self._settings, self._learner.learnt())

    def _is_ready(self) -> bool:
        return not self._stopping and len(self._ready) == self._settings.workers

    async def _keep(self, index: int, folder: str) -> None:
        served = False
        while not self._stopping:
            served = await self._run_one(index, folder) or served
            # One that has served is tried again, whatever is in its way: the others serve on.
            if not served and not self._stopping:
                raise OSError(f"worker {index} could not start; what it said is above")
            if not self._stopping:
                _log.error("worker %d is gone, starting another", index)
                await asyncio.sleep(_RESTART_S)

    async def _run_one(self, index: int, folder: str) -> bool:
        """Run a worker to its end; return whether it ever served."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "extproc.service.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": folder},
        )
        assert process.stdin is not None  # noqa: S101 - PIPE was asked for
        assert process.stdout is not None  # noqa: S101
        self._processes[index], self._inputs[index] = process, process.stdin
        order = Order(self._settings.model_dump_json(), self._addresses[index])
        process.stdin.write(encode(order) + b"".join(self._recent))
        if self._stopping:  # it was on its way when the others were told
            process.stdin.close()
        await self._listen(index, process.stdout)
        await process.wait()
        served = index in self._ready
        self._ready.discard(index)
        del self._processes[index], self._inputs[index]
        mark_process_dead(process.pid, path=folder)  # type: ignore[no-untyped-call]
        return served

    async def _listen(self, index: int, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            if line == b"\n":
                self._ready.add(index)
                _log.info("worker %d serves %s", index, self._addresses[index])
                continue
            try:
                self._learner.learn(_DECODER.decode(line))
            except msgspec.DecodeError:
                _log.warning("worker %d wrote to its standard output what is no observation", index)
                continue
            self._pass_on(index, line)

    def _pass_on(self, index: int, line: bytes) -> None:
        self._recent.append(line)
        for other, pipe in self._inputs.items():
            if other != index:
                send(pipe.transport, line)
