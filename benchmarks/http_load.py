"""`native/load.c` for machines without a compiler; the same arguments and output.

Its own CPU limits the requests a second that a closed loop can reach.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import quantiles

import aiohttp
import uvloop


async def _load(argv: list[str]) -> dict[str, float]:
    port, size, seconds, rate, path, lines, file = argv
    headers = dict(line.split(": ", 1) for line in lines.splitlines() if line)
    body = Path(file).read_bytes()  # noqa: ASYNC240 - nothing else runs yet
    url = f"http://127.0.0.1:{port}{path}"
    times: list[float] = []
    failed = 0
    connector = aiohttp.TCPConnector(limit=int(size))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def post(due: float) -> None:
            nonlocal failed
            try:
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
            except aiohttp.ClientError:
                failed += 1
                return
            failed += answer.status != 200
            times.append((time.monotonic() - due) * 1e6)

        async def loop(until: float) -> None:
            while (now := time.monotonic()) < until:
                await post(now)

        headers["content-type"] = "application/json"
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            if float(rate):
                async for due in _due(begin + float(seconds), float(rate)):
                    group.create_task(post(due))
            else:
                for _ in range(int(size)):
                    group.create_task(loop(begin + float(seconds)))
    cuts = quantiles(times, n=100, method="inclusive")
    return {
        "requests": len(times),
        "failed": failed,
        "seconds": time.monotonic() - begin,
        "p50_us": cuts[49],
        "p99_us": cuts[98],
    }


async def _due(until: float, rate: float) -> AsyncIterator[float]:
    draw, due = random.Random(1), time.monotonic()  # noqa: S311 - nothing secret
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield due
        due += draw.expovariate(rate)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_load(sys.argv[1:]))))  # noqa: T201 - read by the benchmark
