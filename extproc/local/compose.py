"""The stack of docker-compose.yml from outside: Envoy and the service answer, the pools do not.

The pools are on a network of their own. What is known of them comes from Envoy and the service.
"""

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp

from extproc.local.children import StackError
from extproc.local.fleet import StackPool, describe_pools, server_url

_SERVICE_PORT = 8081
_PATIENCE = aiohttp.ClientTimeout(total=10)


@dataclass(frozen=True, slots=True)
class ExternalStack:
    """A running stack; `pools` by rising max_model_len, each with the URL of Envoy."""

    url: str
    service_url: str
    pools: tuple[StackPool, ...]


async def find_stack(session: aiohttp.ClientSession, text: str) -> ExternalStack:
    """Ask Envoy for the model and the service, at port 8081 of the same host, for the windows.

    Raises StackError where one of them does not answer.
    """
    url = server_url("--compose", text)
    service_url = f"http://{_host(url)}:{_SERVICE_PORT}"
    # A question without a prompt goes to the largest pool.
    [largest] = await describe_pools(session, (url,))
    windows = await _windows(session, service_url)
    pools = (replace(largest, name=name, max_model_len=windows[name]) for name in windows)
    return ExternalStack(url, service_url, tuple(pools))


async def _windows(session: aiohttp.ClientSession, service_url: str) -> dict[str, int]:
    try:
        async with session.get(f"{service_url}/state", timeout=_PATIENCE) as response:
            state = await response.json(content_type=None)
        return {str(name): int(window) for name, window in state["pools"].items()}
    except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, LookupError) as error:
        raise StackError(f"{service_url}/state names no pools: {error!r}") from None


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition(":")[0]
