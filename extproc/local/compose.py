"""Finds a running stack of docker-compose.yml by the URL of its Envoy.

Its pools are on a network of their own, so the model is read through Envoy and the windows from
the service.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import aiohttp

from extproc.local.children import StackError
from extproc.local.connection_error import describe
from extproc.local.fleet import StackPool, describe_pools, server_url

_SERVICE_PORTS = range(8081, 8090)  # of the replicas
_TIMEOUT = aiohttp.ClientTimeout(total=10)


@dataclass(frozen=True, slots=True)
class ExternalStack:
    """A running stack; `pools` in ascending order of max_model_len, each with Envoy's URL."""

    url: str
    service_urls: tuple[str, ...]
    """Of each replica of the service, at least one."""
    pools: tuple[StackPool, ...]


async def find_stack(session: aiohttp.ClientSession, text: str) -> ExternalStack:
    """Read the model through Envoy, and the windows from the service at its host.

    Raises StackError if one of them does not answer.
    """
    url = server_url("--compose", text)
    # Envoy routes a request without a prompt to the largest pool.
    [largest] = await describe_pools(session, (url,))
    services = await _services(session, _host(url))
    windows = next(iter(services.values()))
    pools = (replace(largest, name=name, max_model_len=windows[name]) for name in windows)
    return ExternalStack(url, tuple(services), tuple(pools))


async def _services(session: aiohttp.ClientSession, host: str) -> Mapping[str, Mapping[str, int]]:
    """Return the windows of each replica that answers, by its URL."""
    urls = [f"http://{host}:{port}" for port in _SERVICE_PORTS]
    answers = await asyncio.gather(*(_windows(session, url) for url in urls))
    found = {
        url: answer
        for url, answer in zip(urls, answers, strict=True)
        if not isinstance(answer, StackError)
    }
    if not found:
        raise StackError("; ".join(map(str, answers)))
    return found


async def _windows(
    session: aiohttp.ClientSession, service_url: str
) -> Mapping[str, int] | StackError:
    try:
        async with session.get(f"{service_url}/state", timeout=_TIMEOUT) as response:
            state = await response.json(content_type=None)
        return {str(name): int(window) for name, window in state["pools"].items()}
    except (aiohttp.ClientError, TimeoutError) as error:
        return StackError(f"{service_url}/state: {describe(error)}")
    except (ValueError, TypeError, LookupError, AttributeError):
        return StackError(f"{service_url}/state lists no pools")


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition(":")[0]
