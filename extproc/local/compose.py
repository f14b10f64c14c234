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

_SERVICE_PORTS = (8081, 8082, 8083)  # of the replicas; Docker gives one alone any of them
_TIMEOUT = aiohttp.ClientTimeout(total=10)


@dataclass(frozen=True, slots=True)
class ExternalStack:
    """A running stack; `pools` in ascending order of max_model_len, each with Envoy's URL."""

    url: str
    service_url: str
    pools: tuple[StackPool, ...]


async def find_stack(session: aiohttp.ClientSession, text: str) -> ExternalStack:
    """Read the model through Envoy, and the windows from the service at its host.

    Raises StackError if one of them does not answer.
    """
    url = server_url("--compose", text)
    # Envoy routes a request without a prompt to the largest pool.
    [largest] = await describe_pools(session, (url,))
    service_url, windows = await _service(session, _host(url))
    pools = (replace(largest, name=name, max_model_len=windows[name]) for name in windows)
    return ExternalStack(url, service_url, tuple(pools))


async def _service(session: aiohttp.ClientSession, host: str) -> tuple[str, dict[str, int]]:
    """Return the URL and the windows of the first replica that answers."""
    failed = []
    for port in _SERVICE_PORTS:
        url = f"http://{host}:{port}"
        try:
            return url, await _windows(session, url)
        except (aiohttp.ClientError, TimeoutError) as error:
            failed.append(f"{url}/state: {describe(error)}")
    raise StackError("; ".join(failed))


async def _windows(session: aiohttp.ClientSession, service_url: str) -> dict[str, int]:
    try:
        async with session.get(f"{service_url}/state", timeout=_TIMEOUT) as response:
            state = await response.json(content_type=None)
        return {str(name): int(window) for name, window in state["pools"].items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        raise StackError(f"{service_url}/state lists no pools") from None


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition(":")[0]
