"""Which clusters of an Envoy file lead to which pools."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from extproc.config.addresses import host_port
from extproc.config.settings import Settings
from extproc.envoy.document import Part
from extproc.envoy.gateway import takes_decision, targets

_MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class PoolClusters:
    """The clusters of a file by name; `addresses` are the pools' own, with the pool of each.

    `largest` is the largest pool, with rows that of the row of what states no model.
    """

    clusters: Mapping[str, Part]
    pools: tuple[str, ...]
    largest: str
    addresses: Mapping[tuple[str, int], str]

    @property
    def others(self) -> tuple[str, ...]:
        """The names of all other pools."""
        return tuple(name for name in self.pools if name != self.largest)

    def leads_to(self, name: str, depth: int = 0) -> tuple[str, ...]:
        """Return the pools behind a cluster, the preferred first; none if it is another's."""
        if name in self.pools:
            return (name,)
        cluster = self.clusters.get(name)
        if cluster is None or depth > _MAX_DEPTH:
            return ()
        if names := _members(cluster):
            return tuple(pool for each in names for pool in self.leads_to(each, depth + 1))
        found = (self.addresses.get(address) for address in socket_addresses(cluster))
        return tuple(dict.fromkeys(pool for pool in found if pool))

    def is_open(self, name: str, depth: int = 0) -> bool:
        """Whether the file does not say which servers a cluster prefers: EDS, ORIGINAL_DST ..."""
        cluster = self.clusters.get(name)
        if cluster is None or name in self.pools or depth > _MAX_DEPTH:
            return False
        if names := _members(cluster):
            return self.is_open(names[0], depth + 1)
        return not any(endpoints(cluster))

    def has_other_name(self, pool: str) -> bool:
        """Whether a cluster of another name has a pool's servers, and no group needs its own."""
        grouped = {name for each in self.clusters.values() for name in _members(each)}
        return pool not in grouped and any(self.leads_to(n) == (pool,) for n in self.clusters)

    def serves(self, route: Part) -> bool:
        """Whether a route leads to a pool."""
        names = targets(route.at("route"))
        return takes_decision(route) or any(self.leads_to(name.text) for name in names)

    def prefers(self, route: Part, pool: str) -> bool:
        """Whether all of a route's traffic goes to this pool first."""
        names = targets(route.at("route"))
        return bool(names) and all(self.leads_to(name.text)[:1] == (pool,) for name in names)


def _members(cluster: Part) -> list[str]:
    """Return the names of the clusters in an aggregate or composite one."""
    members = cluster.at("cluster_type", "typed_config", "clusters").items()
    return [each.text or each.at("name").text for each in members]


def pool_clusters(document: Part, settings: Settings) -> PoolClusters:
    """Return the clusters of a document and the pools of the settings."""
    found = document.at("static_resources", "clusters").items()
    clusters = {part.at("name").text: part for part in found}
    pools = tuple(pool.name for pool in settings.pools)
    addresses = {host_port(text): pool.name for pool in settings.pools for text in pool.addresses}
    for name in pools:
        if name in clusters:
            addresses |= dict.fromkeys(socket_addresses(clusters[name]), name)
    return PoolClusters(clusters, pools, settings.unnamed_row.pools[-1].name, addresses)


def endpoints(cluster: Part) -> Iterator[Part]:
    """Yield the endpoints that a cluster lists."""
    for group in cluster.at("load_assignment", "endpoints").items():
        yield from group.at("lb_endpoints").items()


def socket_addresses(cluster: Part) -> Iterator[tuple[str, int]]:
    """Yield host and port of each endpoint that has them."""
    for endpoint in endpoints(cluster):
        address = endpoint.at("endpoint", "address", "socket_address")
        if (port := address.at("port_value").number) is not None:
            yield address.at("address").text, port
