"""Sends prompts whose length the service underestimates through two real pools.

    python -m benchmarks.misestimate --pools http://127.0.0.1:8131,http://127.0.0.1:8132

The settings make the service assume 100 bytes per token and never learn. So every prompt goes to
the short pool, is refused there, and must be retried on the long pool, invisibly to the client, and
counted. Exit code 0 if all of them were.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import Progress

from extproc.local.children import StackError
from extproc.local.fleet import StackPool
from extproc.local.stack import Stack, StackGateway, StackOptions
from extproc.names import POOL_HEADER
from extproc.output import report_console

CREDULOUS = {"budget": {"estimator": "paper", "prior_bytes_per_token": 100.0, "beta": 0.999999999}}
WORDS = ("owl", "sleeps", "noon", "forest", "river", "quiet", "stone", "winter", "seven", "lamp")
TOKENS_PER_WORD = 1.3  # approximately, of WORDS and the digits between them
OWN_TOKENS = 200  # the rest is shared, so that prefix caching speeds up the pools
COUNTERS = (("dualpool_misroutes", "retried"), ("dualpool_retries", "misrouted"))


@dataclass(frozen=True)
class PoolReply:
    """An answer: the pool that sent it, and the prompt tokens that it counted."""

    status: int
    pool: str
    prompt_tokens: int


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, object]) -> PoolReply:
    """Send one request."""
    async with session.post(f"{url}/v1/completions", json=body) as response:
        answer = await response.json(content_type=None)
        tokens = (answer.get("usage") or {}).get("prompt_tokens", 0)
        return PoolReply(response.status, response.headers.get(POOL_HEADER, ""), tokens)


def make_text(tokens: int, rng: random.Random) -> str:
    """Return a text of about `tokens` tokens."""
    count = round(tokens / TOKENS_PER_WORD / 2)
    return " ".join(f"{rng.choice(WORDS)} {rng.randrange(10)}" for _ in range(count))


async def ask_all(
    gateway: StackGateway, model: str, options: argparse.Namespace, console: Console
) -> list[PoolReply]:
    """Send all requests, eight at a time."""
    rng = random.Random(options.seed)  # noqa: S311 - traffic, not a secret
    numbers, answers = iter(range(options.requests)), list[PoolReply]()
    shared = make_text(options.tokens - OWN_TOKENS, rng) + " "
    timeout = aiohttp.ClientTimeout(total=600)
    with Progress(console=console) as progress:
        task = progress.add_task("requests", total=options.requests)
        async with aiohttp.ClientSession(timeout=timeout) as session:

            async def client() -> None:
                for _ in numbers:
                    prompt = shared + make_text(OWN_TOKENS, rng)
                    body = {"model": model, "prompt": prompt, "max_tokens": 4}
                    answers.append(await ask(session, gateway.url, body))
                    progress.advance(task)

            await asyncio.gather(*(client() for _ in range(8)))
    return answers


async def count(session: aiohttp.ClientSession, gateway: StackGateway) -> dict[str, int]:
    """Read how many requests the service has counted as misrouted and as retried."""
    async with session.get(f"{gateway.service_url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    totals = dict.fromkeys((name for name, _ in COUNTERS), 0)
    for family in families:
        for sample in family.samples:
            kind = sample.labels.get("kind") or sample.labels.get("cause")
            if (family.name, kind) in COUNTERS and sample.name.endswith("_total"):
                totals[family.name] += int(sample.value)
    return totals


async def count_all(
    session: aiohttp.ClientSession, gateway: StackGateway, asked: int
) -> dict[str, int]:
    """Read the counters until they include the last answers, for at most 10 s."""
    for _ in range(50):
        counted = await count(session, gateway)
        if min(counted.values()) >= asked:
            break
        await asyncio.sleep(0.2)
    return counted


async def run(options: argparse.Namespace, console: Console) -> int:
    """Run the benchmark; return the exit code."""
    stack_options = StackOptions(
        pools=tuple(options.pools.split(",")), ports=None, settings=CREDULOUS
    )
    async with (
        aiohttp.ClientSession() as session,
        Stack(stack_options, session, lambda _: None) as stack,
    ):
        pools = await stack.open_pools()
        gateway = await stack.open_gateway(pools, [pool.upstream for pool in pools])
        started = time.monotonic()
        answers = await ask_all(gateway, pools[0].model, options, console)
        seconds = time.monotonic() - started
        counted = await count_all(session, gateway, options.requests)
    return report(answers, counted, pools, seconds, console)


def report(
    answers: Sequence[PoolReply],
    counted: dict[str, int],
    pools: Sequence[StackPool],
    seconds: float,
    console: Console,
) -> int:
    """Print the result; return the exit code."""
    short, long = pools[0], pools[-1]
    right = [
        each
        for each in answers
        if (each.status, each.pool) == (200, long.name)
        and short.max_model_len < each.prompt_tokens <= long.max_model_len
    ]
    tokens = sorted(each.prompt_tokens for each in answers)
    console.print(f"{len(answers)} prompts of {tokens[0]} to {tokens[-1]} tokens, {seconds:.0f} s")
    console.print(f"windows: {short.name} {short.max_model_len}, {long.name} {long.max_model_len}")
    console.print(f"answered by the long pool: {len(right)}")
    for name, number in counted.items():
        console.print(f"{name}: {number}")
    agreed = {name: len(answers) for name, _ in COUNTERS}
    return 0 if len(right) == len(answers) and counted == agreed else 1


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--pools",
        required=True,
        metavar="URL,URL",
        help="two real servers, of a short and a long window",
    )
    parser.add_argument("--requests", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args()
    console = report_console()
    try:
        return asyncio.run(run(options, console))
    except StackError as error:
        console.print(str(error), markup=False)
        return 1


if __name__ == "__main__":
    print(json.dumps(sys.argv[1:]))  # noqa: T201 - the command, with the figures
    sys.exit(main())
