"""Finds a running stack of docker-compose.yml by the URL of its Envoy.

Its pools are on a network of their own, so the model is read through Envoy and the windows from
the service.
"""

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp

from extproc.local.children import StackError
from extproc.local.connection_error import describe
from extproc.local.fleet import StackPool, describe_pools, server_url

_SERVICE_PORT = 8081
_TIMEOUT = aiohttp.ClientTimeout(total=10)


@dataclass(frozen=True, slots=True)
class ExternalStack:
    """A running stack; `pools` in ascending order of max_model_len, each with Envoy's URL."""

    url: str
    service_url: str
    pools: tuple[StackPool, ...]


async def find_stack(session: aiohttp.ClientSession, text: str) -> ExternalStack:
    """Read the model through Envoy, and the windows from the service at port 8081 of its host.

    Raises StackError if one of them does not answer.
    """
    url = server_url("--compose", text)
    service_url = f"http://{_host(url)}:{_SERVICE_PORT}"
    # Envoy routes a request without a prompt to the largest pool.
    [largest] = await describe_pools(session, (url,))
    windows = await _windows(session, service_url)
    pools = (replace(largest, name=name, max_model_len=windows[name]) for name in windows)
    return ExternalStack(url, service_url, tuple(pools))


async def _windows(session: aiohttp.ClientSession, service_url: str) -> dict[str, int]:
    try:
        async with session.get(f"{service_url}/state", timeout=_TIMEOUT) as response:
            state = await response.json(content_type=None)
        return {str(name): int(window) for name, window in state["pools"].items()}
    except (aiohttp.ClientError, TimeoutError) as error:
        raise StackError(f"{service_url}/state: {describe(error)}") from None
    except (ValueError, TypeError, LookupError, AttributeError):
        raise StackError(f"{service_url}/state lists no pools") from None


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition(":")[0]
