"""Sends many requests through a real Envoy while clients disconnect and processes restart.

    python -m benchmarks.soak --requests 100000

There are two replicas of the service, and two fake pools that log hashes of all that they receive
and send. A fifth of the clients disconnect early; every ten seconds one replica is restarted, and
once, half-way, the short pool, which drains first. At the end every complete answer is compared
with what the pool sent, and the number of learnt answers with those that had usage. Exit code 0 if
nothing was lost or altered and the counts agree within 1 %.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import platform
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.progress import Progress

from extproc.config.load import load
from extproc.envoy.render import render_envoy
from extproc.local.children import Child, Children, Command
from extproc.local.envoy import envoy_command
from extproc.local.ports import Ports, free_ports
from extproc.output import report_console
from extproc.stream.decision import ask_for_usage

LEAVE_SHARE = 0.2
CLIENTS = 48
TOLERANCE = 0.01
READY_S = 30.0
# Short requests fit the short pool; every long one exceeds its window.
SHORT_CHARS, LONG_CHARS = 2000, 60_000
ANSWER_S = 0.06  # the least time that soak_pool.py takes to answer
SHORT_WINDOW, LONG_WINDOW = 8192, 65536

Tick = Callable[[], None]


@dataclass(frozen=True)
class SoakRequest:
    """One request, and when its client disconnects, if it does."""

    id: str
    body: bytes
    leaves_after: int = -1
    """Bytes of the answer after which the client disconnects; -1: never."""
    patience_s: float | None = None
    """Seconds after which the client disconnects, fewer than a pool takes; None: never."""


@dataclass
class ClientRecord:
    """What the clients observed."""

    whole: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Hashes of request and answer by id, of the complete answers."""
    with_usage_asked: dict[str, str] = field(default_factory=dict)
    """Hash of the request as the service forwards it when it asks for usage, by id."""
    faults: Counter[str] = field(default_factory=Counter)
    left: int = 0


def make_request(number: int, rng: random.Random) -> SoakRequest:
    """Return a request: half are streams, half of these ask for usage; a tenth are long."""
    size = rng.randrange(LONG_CHARS // 2, LONG_CHARS) if rng.random() < 0.1 else SHORT_CHARS
    text = " ".join(f"owl{rng.randrange(1000)}" for _ in range(rng.randrange(5, size // 7)))
    fields: dict[str, object] = {"model": "soak", "prompt": text, "max_tokens": 50}
    if rng.random() < 0.5:
        fields["stream"] = True
        if rng.random() < 0.5:
            fields["stream_options"] = {"include_usage": True}
    asked = SoakRequest(f"soak-{number}", json.dumps(fields).encode())
    if rng.random() >= LEAVE_SHARE:
        return asked
    if "stream" in fields and rng.random() < 0.8:
        return replace(asked, leaves_after=rng.randrange(150))
    return replace(asked, patience_s=rng.random() * ANSWER_S / 2)


class Replica:
    """A replica of the service: its process, and the counters of all its processes so far."""

    def __init__(self, children: Children, settings: Path, http: int) -> None:
        self._children, self._settings, self._http = children, settings, http
        self._child: Child | None = None
        self._past: Counter[str] = Counter()
        self._now: Counter[str] = Counter()

    @property
    def totals(self) -> Counter[str]:
        """Counters of all its processes, as last read."""
        return self._past + self._now

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Start a process and wait until it is ready."""
        argv = (sys.executable, "-m", "extproc", "serve", "--config", str(self._settings))
        self._child = await self._children.start(Command("service", argv, grace_s=60))
        async with asyncio.timeout(READY_S):
            while not await self.read(session):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)

    async def restart(self, session: aiohttp.ClientSession) -> None:
        """Stop the process with SIGTERM, as an operator does, and start another."""
        assert self._child is not None  # noqa: S101
        ending = asyncio.ensure_future(self._child.stop())
        while not ending.done():
            await self.read(session)
            await asyncio.sleep(0.05)
        self._past, self._now = self._past + self._now, Counter()
        await self.start(session)

    async def read(self, session: aiohttp.ClientSession) -> bool:
        """Read its counters; return False if it does not answer."""
        try:
            async with session.get(f"http://127.0.0.1:{self._http}/metrics") as response:
                text = await response.text()
        except aiohttp.ClientError:
            return False
        lines = (line.rpartition(" ") for line in text.splitlines() if line[:1] != "#")
        self._now = Counter(
            {name: int(float(value)) for name, _, value in lines if "_total" in name}
        )
        return True


@dataclass
class SoakStack:
    """The running processes."""

    ports: Ports
    session: aiohttp.ClientSession
    children: Children
    replicas: list[Replica]
    pools: dict[str, Child]
    log: Path

    async def start_pool(self, name: str) -> None:
        """Start a pool."""
        port = self.ports.pools[name == "long"]
        script = str(Path(__file__).with_name("soak_pool.py"))
        argv = (sys.executable, script, name, str(port), str(self.log))
        self.pools[name] = await self.children.start(Command(name, argv, grace_s=10))

    async def restart_pool(self, name: str) -> None:
        """Stop a pool, which drains first, and start it again."""
        await self.pools[name].stop()
        await asyncio.sleep(1)
        await self.start_pool(name)


def make_settings(ports: Ports, http: int) -> dict[str, object]:
    """Return the settings of a replica; Envoy sees the replicas like two workers."""
    windows = (("short", SHORT_WINDOW, ports.pools[0]), ("long", LONG_WINDOW, ports.pools[1]))
    return {
        "listen": {"grpc": f"127.0.0.1:{ports.grpc}", "http": f"127.0.0.1:{http}"},
        "pools": [
            {"name": name, "max_model_len": window, "address": f"127.0.0.1:{port}"}
            for name, window, port in windows
        ],
        # Each answer that was learnt is compared with what a client was told.
        "requests": {"observe_sample": 1.0},
        "envoy": {
            "listen": f"127.0.0.1:{ports.listener}",
            "admin": f"127.0.0.1:{ports.admin}",
        },
    }


async def start(folder: Path, session: aiohttp.ClientSession, children: Children) -> SoakStack:
    """Start pools, replicas and Envoy; return when Envoy sees both replicas as healthy."""
    ports, files = free_ports(), []
    second = ports.http + 1
    for number, http in enumerate((ports.http, second)):
        document = make_settings(ports, http)
        # Each replica listens on its own port; Envoy gets both below.
        document["listen"]["grpc"] = f"127.0.0.1:{ports.grpc + number}"  # type: ignore[index]
        files.append(folder / f"replica-{number}.json")
        files[-1].write_text(json.dumps(document), encoding="utf-8")
    replicas = [Replica(children, file, ports.http + n) for n, file in enumerate(files)]
    stack = SoakStack(ports, session, children, replicas, {}, folder / "pools.jsonl")
    for name in ("short", "long"):
        await stack.start_pool(name)
    await asyncio.gather(*(replica.start(session) for replica in replicas))
    both = folder / "envoy.json"
    both.write_text(json.dumps({**make_settings(ports, ports.http), "workers": 2}))
    await children.start(envoy_command(render_envoy(load(both))))
    async with asyncio.timeout(READY_S):
        healthy = "cluster.dualpool.membership_healthy"
        while await stat(stack, healthy) < len(replicas):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
    return stack


async def stat(stack: SoakStack, name: str) -> int:
    """Read one of Envoy's counters or gauges; 0 while it does not answer."""
    url = f"http://127.0.0.1:{stack.ports.admin}/stats?format=json&filter=^{re.escape(name)}$"
    try:
        async with stack.session.get(url) as response:
            stats = (await response.json(content_type=None))["stats"]
    except aiohttp.ClientError:
        return 0
    return sum(each.get("value", 0) for each in stats)


async def send(stack: SoakStack, asked: SoakRequest, seen: ClientRecord) -> None:
    """Send a request; receive its answer, or disconnect early."""
    headers = {"content-type": "application/json", "x-request-id": asked.id}
    url, body = f"http://127.0.0.1:{stack.ports.listener}/v1/completions", bytearray()
    timeout = aiohttp.ClientTimeout(asked.patience_s)
    try:
        async with stack.session.post(
            url, data=asked.body, headers=headers, timeout=timeout
        ) as response:
            async for data in response.content.iter_any():
                body += data
                if 0 <= asked.leaves_after <= len(body):
                    response.close()
                    seen.left += 1
                    return
            fault = "" if response.status == 200 else f"status {response.status}"
    except TimeoutError:
        seen.left += 1
        return
    except aiohttp.ClientError as error:
        fault = type(error).__name__
    if fault:
        seen.faults[fault] += 1
        return
    seen.whole[asked.id] = (_sha(asked.body), _sha(bytes(body)))
    seen.with_usage_asked[asked.id] = _sha(ask_for_usage(asked.body))


async def send_all(
    stack: SoakStack, options: argparse.Namespace, seen: ClientRecord, tick: Tick
) -> None:
    """Send all requests, CLIENTS at a time."""
    rng = random.Random(options.seed)  # noqa: S311 - traffic, not a secret
    numbers = iter(range(options.requests))

    async def client() -> None:
        for number in numbers:
            await send(stack, make_request(number, rng), seen)
            tick()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def restart_all(stack: SoakStack, every_s: float, count: Counter[str]) -> None:
    """Restart one replica after the other, until cancelled."""
    for replica in itertools.cycle(stack.replicas):
        await asyncio.sleep(every_s)
        count["replica"] += 1
        await replica.restart(stack.session)


@dataclass(frozen=True)
class SoakReport:
    """The result."""

    requests: int
    seconds: float
    left: int
    whole: int
    lost: int
    altered_requests: int
    altered_answers: int
    usage_asked: int
    told_usage: int
    learnt: int
    short: int
    long: int
    restarts: int
    fail_open: int
    retries: int

    @property
    def sound(self) -> bool:
        """Whether nothing was lost or altered and the counts agree."""
        unlearnt = abs(self.learnt - self.told_usage) / max(1, self.told_usage)
        altered = self.altered_requests + self.altered_answers
        return not self.lost and not altered and unlearnt <= TOLERANCE


async def make_report(
    stack: SoakStack, seen: ClientRecord, requests: int, seconds: float, count: Counter[str]
) -> SoakReport:
    """Compare the clients' record with the pools' log."""
    rows = [json.loads(line) for line in stack.log.read_text(encoding="utf-8").splitlines()]
    by_id = {row["id"]: row for row in rows}
    asked = {id_ for id_, row in by_id.items() if row["got"] == seen.with_usage_asked.get(id_)}
    whole = {id_: hashes for id_, hashes in seen.whole.items() if id_ in by_id}
    totals = sum((replica.totals for replica in stack.replicas), Counter[str]())
    return SoakReport(
        requests=requests,
        seconds=seconds,
        left=seen.left,
        whole=len(seen.whole),
        lost=sum(seen.faults.values()) + len(seen.whole) - len(whole),
        altered_requests=sum(
            by_id[id_]["got"] != hashes[0] and id_ not in asked for id_, hashes in whole.items()
        ),
        altered_answers=sum(
            by_id[id_]["sent_less_usage" if id_ in asked else "sent"] != hashes[1]
            for id_, hashes in whole.items()
        ),
        usage_asked=len(asked),
        told_usage=sum(by_id[id_]["tells_usage"] for id_ in whole),
        learnt=totals['dualpool_answers_total{outcome="learnt"}'],
        short=sum(by_id[id_]["pool"] == "short" for id_ in whole),
        long=sum(by_id[id_]["pool"] == "long" for id_ in whole),
        restarts=count["replica"],
        fail_open=await stat(stack, "http.llm.ext_proc.router.failure_mode_allowed"),
        retries=sum(n for name, n in totals.items() if name.startswith("dualpool_retries_total")),
    )


async def soak(options: argparse.Namespace, console: Console) -> SoakReport:
    """Run the soak test; return its report."""
    seen, count, children = ClientRecord(), Counter[str](), Children()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
            try:
                stack = await start(Path(folder), session, children)
                task = progress.add_task("requests", total=options.requests)
                started = time.monotonic()
                restarts = asyncio.ensure_future(restart_all(stack, options.every, count))

                def tick() -> None:
                    progress.advance(task)
                    if progress.tasks[0].completed == options.requests // 2:
                        pools.append(asyncio.ensure_future(stack.restart_pool("short")))

                pools: list[asyncio.Future[None]] = []
                await send_all(stack, options, seen, tick)
                seconds = time.monotonic() - started
                restarts.cancel()
                await asyncio.gather(*pools)
                await settle(stack)
                return await make_report(stack, seen, options.requests, seconds, count)
            finally:
                await children.stop()


async def settle(stack: SoakStack) -> None:
    """Wait until the counters of all replicas no longer change."""
    before = Counter[str]()
    while (now := sum((each.totals for each in stack.replicas), Counter[str]())) != before:
        before = now
        await asyncio.sleep(2)
        for replica in stack.replicas:
            await replica.read(stack.session)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument(
        "--every", type=float, default=10.0, metavar="S", help="seconds between restarts"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = report_console()
    console.print(
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    report = asyncio.run(soak(options, console))
    for name, value in asdict(report).items():
        console.print(f"{name:>18} {value:,.0f}")
    console.print("sound" if report.sound else "NOT SOUND")
    return 0 if report.sound else 1


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
