"""What was seen of a live installation, before anything is concluded from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from extproc.config.settings import PoolSettings, Settings
from extproc.envoy.document import Part
from extproc.envoy.gateway import Processor
from extproc.envoy.pool_clusters import PoolClusters, pool_clusters
from extproc.page.counts import Counts
from extproc.routing.load.discovery import Discord

SERVICE_CLUSTER = "dualpool"
"""What `dualpool config envoy` names the service's cluster."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """What could not be read, and why.

    hangs: a connection was accepted, and no answer came in time. refused: it was not accepted.
    """

    reason: str
    hangs: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """A server of one of Envoy's clusters: its address, and why Envoy does not use it, if so.

    unconnected: how often Envoy could not connect to it.
    """

    cluster: str
    address: str
    """HOST:PORT, or the path of a Unix socket."""
    failed: tuple[str, ...]
    unconnected: float = 0


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that is in use, and the days until it expires."""

    name: str
    days: float


@dataclass(frozen=True, slots=True)
class EnvoyFacts:
    """What Envoy's admin states: its bootstrap, its servers, its counters and its certificates."""

    bootstrap: Part
    hosts: tuple[Host, ...]
    counters: Mapping[str, float]
    certificates: tuple[Certificate, ...]

    @property
    def by_xds(self) -> bool:
        """Whether a control plane delivers what the bootstrap does not show."""
        return self.bootstrap.at("dynamic_resources").present

    def processors(self) -> Iterator[Processor]:
        """Yield the ext_proc filters that call the service."""
        for part in self.bootstrap.typed("ExternalProcessor"):
            if (processor := Processor(part)).calls((SERVICE_CLUSTER,)):
                yield processor

    def count(self, counter: str) -> float | None:
        """Return a counter of the filters that ask the service; None if Envoy does not count it."""
        prefixes = {p.at("stat_prefix").text for p in self.processors() if not p.observes}
        ends = tuple(f".ext_proc.{prefix}.{counter}".replace("..", ".") for prefix in prefixes)
        found = [value for name, value in self.counters.items() if ends and name.endswith(ends)]
        return sum(found) if found else None


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What the service states: its readiness and its counters.

    used: the windows that count for its decisions, by pool, where it asks the servers.
    discords: by pool, in which names its servers disagree with the settings or among themselves.
    """

    ready: bool
    counts: Counts
    used: Mapping[str, int] = field(default_factory=dict)
    discords: Mapping[str, Discord] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Served:
    """A server of a pool, and max_model_len of each model that it serves."""

    pool: PoolSettings
    address: str
    windows: Mapping[str, int] | Unseen
    unconnected: float = 0
    """How often Envoy could not connect to it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was seen.

    settings: what all is compared with: those that the service runs with, if it states them.
    seconds: how long the counters were watched; 0: they count since their processes started.
    """

    settings: Settings
    service: ServiceFacts | Unseen
    envoy: EnvoyFacts | Unseen
    served: tuple[Served, ...] = ()
    certificate: Certificate | Unseen | None = None
    """The service's own; None if it uses no TLS."""
    seconds: float = 0
    unstated: str = ""
    """Why the service does not state its settings, if so."""
    file: Settings | None = None
    """Those of the file that --config names."""

    @property
    def when(self) -> str:
        """When what the counters state has happened."""
        return f"in {self.seconds:g} s" if self.seconds else "since the start"


def pools_of(envoy: EnvoyFacts, settings: Settings) -> Iterator[tuple[PoolSettings, Host]]:
    """Yield each server of a pool's own cluster, once, with its pool."""
    fleet: PoolClusters = pool_clusters(envoy.bootstrap, settings)
    seen: set[str] = set()
    for host in envoy.hosts:
        names = fleet.leads_to(host.cluster)
        if len(names) == 1 and host.address not in seen:
            seen.add(host.address)
            yield next(pool for pool in settings.pools if pool.name == names[0]), host
