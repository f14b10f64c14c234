"""Ask the service, Envoy's admin and the pools for what they state of themselves.

Invariant: each answer is bounded in size and time, and whatever it holds, nothing is raised.
"""

import asyncio
import json
import math
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from extproc.config.addresses import ANY_HOST, host_port
from extproc.config.settings import PoolSettings, Settings
from extproc.doctor.facts import (
    Certificate,
    EnvoyFacts,
    Facts,
    Host,
    Served,
    ServiceFacts,
    Unseen,
    pools_of,
)
from extproc.envoy.document import Part
from extproc.local.connection_error import describe
from extproc.page.counts import Counts
from extproc.routing.load.discovery import Discord

_MOST_BYTES: Final = 1 << 26
_MOST_SERVERS: Final = 64
_MOST_MODELS: Final = 256
_CONNECT_S: Final = 5.0
_TIMEOUT_S: Final = 10.0
_DAY_S: Final = 86_400.0
# Of each metric the labels that conclusions ask for, in the order of page.counts.
_UNKNOWN_SETTINGS: Final = Unseen(
    "/state of the service names settings that this command does not know"
)
_LABELS: Final = ("pool", "verdict", "kind", "cause", "outcome", "reason", "state")
_GAUGES: Final = (
    *("dualpool_workers", "dualpool_pool_servers"),
    *("dualpool_state_connected", "dualpool_state_failing"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where to look: base URLs without a trailing slash.

    token: the bearer token of the service's HTTP side; empty: none.
    watch_s: judge the traffic of so many seconds; 0: all since the processes started.
    """

    service: str
    envoy: str
    token: str = ""
    watch_s: float = 0


async def look(settings: Settings, places: Places) -> Facts:
    """Return what is seen; what cannot be reached is a part of it."""
    async with _session() as session:
        service, envoy = await _look_twice(session, places)
        served: tuple[Served, ...] = ()
        if isinstance(envoy, EnvoyFacts):
            found = [*pools_of(envoy, settings)][:_MOST_SERVERS]
            served = tuple(
                await asyncio.gather(*(_served(session, pool, host) for pool, host in found))
            )
        certificate = await _own_certificate(settings)
    return Facts(settings, service, envoy, served, certificate, places.watch_s)


async def ask_settings(service: str, token: str) -> Settings | Unseen:
    """Return the settings that the service at this base URL runs with."""
    async with _session() as session:
        state = await _get(session, f"{service}/state", token)
    if isinstance(state, Unseen):
        reason = "HTTP 401: it requires its token, with --token-file"
        return Unseen(state.reason.replace("HTTP 401", reason))
    return read_settings(state)


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S, sock_connect=_CONNECT_S)
    return aiohttp.ClientSession(timeout=timeout)


async def _look_twice(
    session: aiohttp.ClientSession, places: Places
) -> tuple[ServiceFacts | Unseen, EnvoyFacts | Unseen]:
    async def both() -> tuple[ServiceFacts | Unseen, EnvoyFacts | Unseen]:
        return await _service(session, places), await _envoy(session, places.envoy)

    service, envoy = await both()
    if not places.watch_s:
        return service, envoy
    await asyncio.sleep(places.watch_s)
    later_service, later_envoy = await both()
    if isinstance(service, ServiceFacts) and isinstance(later_service, ServiceFacts):
        counts = _risen(service.counts.values, later_service.counts.values)
        later_service = replace(later_service, counts=Counts(counts))
    if isinstance(envoy, EnvoyFacts) and isinstance(later_envoy, EnvoyFacts):
        later_envoy = EnvoyFacts(
            later_envoy.bootstrap,
            later_envoy.hosts,
            _risen(envoy.counters, later_envoy.counters),
            later_envoy.certificates,
        )
    return later_service, later_envoy


def _risen(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    # The numbers of workers and of the pools' servers are no counters, nor is what holds now.
    return {
        key: value if key.startswith(_GAUGES) else max(0.0, value - before.get(key, 0.0))
        for key, value in now.items()
    }


async def _service(session: aiohttp.ClientSession, places: Places) -> ServiceFacts | Unseen:
    answer = await _get(session, f"{places.service}/metrics")
    if isinstance(answer, Unseen):
        return answer
    if b"\ndualpool_" not in answer:
        return Unseen(f"{places.service}/metrics has no metrics of the service")
    ready = await _get(session, f"{places.service}/readyz")
    state = await _get(session, f"{places.service}/state", places.token)
    discovered = {} if isinstance(state, Unseen) else read_discovered(state)
    used, discords = read_used(discovered), read_discords(discovered)
    return ServiceFacts(not isinstance(ready, Unseen), read_counts(answer), used, discords)


async def _envoy(session: aiohttp.ClientSession, url: str) -> EnvoyFacts | Unseen:
    parts = []
    for path in (
        "config_dump",
        "clusters?format=json",
        "stats?format=json&filter=ext_proc",
        "certs",
    ):
        answer = await _get(session, f"{url}/{path}")
        if isinstance(answer, Unseen):
            return answer
        if not isinstance(document := _json(answer), dict):
            return Unseen(f"{url}/{path} is no answer of Envoy's admin")
        parts.append(Part("", document))
    dump, clusters, stats, certs = parts
    bootstraps = (each.at("bootstrap").value for each in dump.at("configs").items())
    return EnvoyFacts(
        # Paths in findings begin there.
        Part("", next(filter(None, bootstraps), None)),
        tuple(read_hosts(clusters)),
        {
            each.at("name").text: _number(each.at("value").value)
            for each in stats.at("stats").items()
            if each.at("value").present
        },
        tuple(_certificates(certs)),
    )


async def _served(session: aiohttp.ClientSession, pool: PoolSettings, host: Host) -> Served:
    if host.failed or pool.tls_ca:
        reason = "Envoy cannot use it" if host.failed else "it is asked over TLS by Envoy alone"
        return Served(pool, host.address, Unseen(reason))
    answer = await _get(session, f"http://{host.address}/v1/models")
    windows = answer if isinstance(answer, Unseen) else read_models(answer)
    return Served(pool, host.address, windows, host.unconnected)


async def _get(session: aiohttp.ClientSession, url: str, token: str = "") -> bytes | Unseen:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            data = bytearray()
            async for piece in response.content.iter_any():
                data += piece
                if len(data) > _MOST_BYTES:
                    return Unseen(f"{url}: more than {_MOST_BYTES} bytes")
            if response.status != 200:
                return Unseen(f"{url}: HTTP {response.status}")
            return bytes(data)
    except (aiohttp.ClientError, TimeoutError) as error:
        # While it connects, aiohttp raises an error of its own.
        hangs = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError)
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
        refused = isinstance(cause, ConnectionRefusedError)
        return Unseen(f"{url}: {describe(error)}", hangs=hangs, refused=refused)
    except ValueError:
        return Unseen(f"{url[:200]!r} is no address")


def read_counts(data: bytes) -> Counts:
    """Return the counters of a page of metrics, with the labels that are asked for."""
    values: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(data.decode("utf-8", "replace")):
            for sample in family.samples:
                is_figure = sample.name.startswith("dualpool_") and 0 <= sample.value < math.inf
                if is_figure and not sample.name.endswith("_created"):
                    labels = (sample.labels[name] for name in _LABELS if name in sample.labels)
                    key = " ".join((sample.name, *labels))
                    values[key] = values.get(key, 0.0) + sample.value
    except (ValueError, KeyError, IndexError):
        pass  # not a page of metrics: nothing was counted
    return Counts(values)


def read_settings(data: bytes) -> Settings | Unseen:
    """Return the settings in a page of /state."""
    stated = Part("", _json(data)).at("settings")
    if not stated.present:
        return Unseen("/state of the service names no settings: it is older than this command")
    try:
        settings = Settings.model_validate(stated.value)
    except (ValueError, RecursionError):
        return _UNKNOWN_SETTINGS
    # `load` refuses these rather than the section.
    return settings if all(row.pools for row in settings.fleet) else _UNKNOWN_SETTINGS


def read_used(discovered: Mapping[str, Part]) -> Mapping[str, int]:
    """Return the windows that count for the service's decisions, by pool, where it asks servers."""
    used = {name: pool.at("used").number for name, pool in discovered.items()}
    return {name: window for name, window in used.items() if window is not None}


def read_discords(discovered: Mapping[str, Part]) -> Mapping[str, Discord]:
    """Return in which names of models the servers disagree, by pool."""

    def names(pool: Part, kind: str) -> tuple[str, ...]:
        return tuple(each.text for each in pool.at(kind).items() if each.text)

    return {
        name: Discord(
            missing=names(pool, "missing"),
            unlisted=names(pool, "unlisted"),
            apart=names(pool, "apart"),
        )
        for name, pool in discovered.items()
    }


def read_discovered(data: bytes) -> Mapping[str, Part]:
    """Return the pools of which the servers' own statements are in a page of /state."""
    found = Part("", _json(data)).at("discovered").value
    pools = found if isinstance(found, dict) else {}
    return {str(name): Part("", pool) for name, pool in pools.items()}


def read_models(data: bytes) -> Mapping[str, int] | Unseen:
    """Return max_model_len of each model that a server's /v1/models lists."""
    rows = Part("", _json(data)).at("data").items()[:_MOST_MODELS]
    found = {row.at("id").text: row.at("max_model_len").number for row in rows}
    windows = {name: window for name, window in found.items() if window is not None}
    return windows or Unseen("/v1/models lists no model with max_model_len")


def read_hosts(clusters: Part) -> Iterable[Host]:
    """Yield the servers in Envoy's /clusters?format=json."""
    for cluster in clusters.at("cluster_statuses").items():
        for host in cluster.at("host_statuses").items():
            address = host.at("address", "socket_address")
            port = address.at("port_value").number
            name, status = address.at("address").text, host.at("health_status").value
            where = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
            yield Host(
                cluster.at("name").text,
                host.at("address", "pipe", "path").text if port is None else where,
                tuple(
                    str(key).replace("_", " ")
                    for key, value in (status if isinstance(status, dict) else {}).items()
                    if str(key).startswith("failed") and value is True
                ),
                sum(
                    each.at("value").number or 0  # Envoy leaves out a value of 0
                    for each in host.at("stats").items()
                    if each.at("name").text == "cx_connect_fail"
                ),
            )


def _certificates(certs: Part) -> Iterable[Certificate]:
    for each in certs.at("certificates").items():
        for kind in ("ca_cert", "cert_chain"):
            for one in each.at(kind).items():
                days = _number(one.at("days_until_expiration").value)
                if not math.isnan(days):
                    yield Certificate(f"Envoy's {one.at('path').text or kind}", days)


async def _own_certificate(settings: Settings) -> Certificate | Unseen | None:
    listen = settings.listen
    if not listen.tls_cert or listen.grpc.startswith("unix:"):
        return None
    host, port = host_port(listen.grpc)
    host = settings.envoy.service if host in ANY_HOST else host
    try:
        context = ssl.create_default_context(cafile=settings.envoy.tls_ca or None)
        context.check_hostname = False
        context.set_alpn_protocols(["h2"])
        async with asyncio.timeout(_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        given = writer.get_extra_info("peercert")
        writer.close()
    except ssl.SSLCertVerificationError as error:
        if "expired" in error.verify_message:
            return Certificate(f"the service's {listen.tls_cert}", -1)
        return Unseen(f"{host}:{port}: {error.verify_message}")
    except (OSError, TimeoutError) as error:
        return Unseen(f"{host}:{port}: {error.strerror or 'no TLS connection'}")
    end = ssl.cert_time_to_seconds(str(given["notAfter"]))
    return Certificate(f"the service's {listen.tls_cert}", (end - time.time()) / _DAY_S)


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan
