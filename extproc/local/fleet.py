"""The pools of the local stack: simulated ones, or real servers by URL."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from extproc.config.errors import UserError
from extproc.local.children import Command, StackError
from extproc.local.connection_error import describe
from extproc.local.envoy import Upstream
from extproc.simulator.pool.answer import SIMULATED_HEADER

MODEL = "simulated"
_TIMEOUT = aiohttp.ClientTimeout(total=10)

# With or without the /v1 that clients append.
_URL = re.compile(
    r"(http://)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?(/v1)?/?"
)


@dataclass(frozen=True, slots=True)
class StackPool:
    """A running pool: one OpenAI-compatible server; max_model_len in tokens."""

    name: str
    url: str
    model: str
    max_model_len: int
    simulated: bool

    @property
    def upstream(self) -> Upstream:
        """Its address for Envoy."""
        parts = urlsplit(self.url)
        return Upstream(self.name, parts.hostname or "", parts.port or 80)


@dataclass(frozen=True, slots=True)
class PoolSize:
    """Name and max_model_len, in tokens, of a pool that is to be simulated."""

    name: str
    max_model_len: int

    @property
    def max_num_seqs(self) -> int:
        """As many sequences as fill the KV cache at full length, as in the papers."""
        return max(1, _NUM_BLOCKS * _BLOCK_TOKENS // self.max_model_len)


# The paper's two configurations of one instance, both with 1,048,576 KV tokens.
PAPER_SIZES = (PoolSize("short", 8192), PoolSize("long", 65_536))
_NUM_BLOCKS = 65_536
_BLOCK_TOKENS = 16


def simulated_pools(
    ports: Sequence[int], speed: float, seed: int, sizes: Sequence[PoolSize] = PAPER_SIZES
) -> tuple[Command, ...]:
    """Return the commands that run the simulated pools, one per port."""
    return tuple(_command(size, port, speed, seed) for size, port in zip(sizes, ports, strict=True))


def _command(size: PoolSize, port: int, speed: float, seed: int) -> Command:
    options = {
        "name": size.name,
        "port": port,
        "max-model-len": size.max_model_len,
        "max-num-seqs": size.max_num_seqs,
        "num-blocks": _NUM_BLOCKS,
        "model": MODEL,
        "speed": speed,
        "seed": seed,
    }
    flags = (text for key, value in options.items() for text in (f"--{key}", str(value)))
    return Command(
        f"pool {size.name}", (sys.executable, "-m", "extproc.simulator.pool.server", *flags)
    )


def server_url(option: str, text: str) -> str:
    """Parse the base URL that the operator gave to `option`; raises UserError."""
    found = _URL.fullmatch(text)
    if found is None:
        raise UserError(f"{option}: {text!r} is not http://HOST:PORT")
    return f"http://{found['host']}:{found['port'] or 80}"


async def describe_pools(
    session: aiohttp.ClientSession, urls: Sequence[str], names: Sequence[str] = ()
) -> tuple[StackPool, ...]:
    """Read /v1/models of each server; return the pools in ascending order of max_model_len.

    names: one per server in that order; if empty, short, middle-1 ... and long.
    Raises StackError if a server does not report max_model_len, or if they share no model.
    """
    answers = [await _read_models(session, url) for url in urls]
    model = _common_model(answers)
    # The order of the URLs does not matter: the window alone tells short from long.
    answers.sort(key=lambda answer: answer.windows[model])
    windows = [answer.windows[model] for answer in answers]
    if len(set(windows)) < len(windows):
        raise StackError(f"--pools: two pools have the same max_model_len: {windows}")
    return tuple(
        StackPool(name, answer.url, model, answer.windows[model], answer.simulated)
        for name, answer in zip(names or _names(len(answers)), answers, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _ServedModels:
    url: str
    windows: dict[str, int]  # max_model_len by model
    simulated: bool


async def _read_models(session: aiohttp.ClientSession, url: str) -> _ServedModels:
    try:
        async with session.get(f"{url}/v1/models", timeout=_TIMEOUT) as response:
            document = await response.json(content_type=None)
            windows = {row["id"]: int(row["max_model_len"]) for row in document["data"]}
            simulated = SIMULATED_HEADER in response.headers
    except (aiohttp.ClientError, TimeoutError) as error:
        raise StackError(f"{url}/v1/models: {describe(error)}") from None
    except (ValueError, TypeError, KeyError):
        raise StackError(f"{url}/v1/models lists no model with max_model_len") from None
    return _ServedModels(url, windows, simulated)


def _common_model(answers: Sequence[_ServedModels]) -> str:
    for model in answers[0].windows:
        if all(model in answer.windows for answer in answers):
            return model
    served = "; ".join(f"{answer.url}: {', '.join(answer.windows)}" for answer in answers)
    raise StackError(f"--pools: no model is served by all of them ({served})")


def _names(count: int) -> tuple[str, ...]:
    match count:
        case 1:
            return ("long",)
        case 2:
            return ("short", "long")
        case _:
            return ("short", *(f"middle-{n}" for n in range(1, count - 1)), "long")
