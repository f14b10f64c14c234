"""The parts of an Envoy file that a request passes: listeners, HTTP filters and routes.

What a filter does on a route is its own configuration with that of the route, the virtual host and
the route configuration over it, the most specific first.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from extproc.envoy.document import Part
from extproc.names import POOL_HEADER

_METADATA = "llm"
_FILTER_CONFIG = ".FilterConfig"


@dataclass(frozen=True, slots=True)
class RouteLevels:
    """A route, its virtual host and its route configuration."""

    route: Part
    host: Part
    configuration: Part

    def settings_of(self, name: str) -> list[Part]:
        """Return what they say of the filter of this name, the most specific first."""
        levels = (self.route, self.host, self.configuration)
        found = (level.at("typed_per_filter_config", name) for level in levels)
        return [each for each in found if each.present]


@dataclass(frozen=True)
class GatewayFilter:
    """An HTTP filter; `position` is its place in the chain, 0 being the first for a request."""

    part: Part
    position: int

    @property
    def name(self) -> str:
        """The name, by which routes refer to it."""
        return self.part.at("name").text

    def is_on(self, levels: RouteLevels) -> bool:
        """Whether it runs for requests of this route."""
        for given in levels.settings_of(self.name):
            return given.at("disabled").value is not True and (
                _inner(given).at("disabled").value is not True
            )
        return self.part.at("disabled").value is not True

    def typed(self, *names: str) -> Iterator[Part]:
        """Yield its messages whose @type ends with one of these names, at any depth."""
        for name in names:
            yield from (each for each in self._messages if each.type_ends(name))

    @cached_property
    def _messages(self) -> list[Part]:
        return [*self.part.messages()]

    def processors(self, levels: RouteLevels) -> "Iterator[Processor]":
        """Yield its ext_proc configurations as they are on this route."""
        overrides = tuple(_inner(e).at("overrides") for e in levels.settings_of(self.name))
        for part in self.typed("ExternalProcessor"):
            yield Processor(part, overrides)


@dataclass(frozen=True, slots=True)
class Processor:
    """The configuration of an ext_proc filter, with the overrides of a route."""

    part: Part
    overrides: tuple[Part, ...] = ()

    def at(self, *keys: str) -> Part:
        """Return the part under these keys, which may be absent."""
        for each in self.overrides:
            if each.at(keys[0]).present:
                return each.at(*keys)
        return self.part.at(*keys)

    @property
    def observes(self) -> bool:
        """Whether Envoy only shows it the traffic."""
        return self.part.at("observability_mode").value is True

    def calls(self, services: Collection[str]) -> bool:
        """Whether it calls one of these clusters, or exchanges the metadata of decisions."""
        if self.at("grpc_service", "envoy_grpc", "cluster_name").text in services:
            return True
        options = self.part.at("metadata_options")
        return any(
            name.text == _METADATA
            for direction in ("receiving_namespaces", "forwarding_namespaces")
            for name in options.at(direction, "untyped").items()
        )


@dataclass(frozen=True)
class ManagedListener:
    """A listener and one of its HTTP connection managers."""

    listener: Part
    manager: Part

    @cached_property
    def filters(self) -> list[GatewayFilter]:
        """The HTTP filters in order."""
        return [GatewayFilter(p, i) for i, p in enumerate(_listed(self.manager.at("http_filters")))]

    @property
    def has_other_routes(self) -> bool:
        """Whether it has routes that are not in the file, or are chosen by a matcher."""
        elsewhere = any(self.manager.at(key).present for key in ("rds", "scoped_routes"))
        return elsewhere or any(host.at("matcher").present for host in self.hosts)

    @cached_property
    def hosts(self) -> list[Part]:
        """The virtual hosts."""
        return self.manager.at("route_config", "virtual_hosts").items()

    @cached_property
    def routes(self) -> list[RouteLevels]:
        """The routes of all virtual hosts."""
        configuration = self.manager.at("route_config")
        return [
            RouteLevels(route, host, configuration)
            for host in self.hosts
            for route in host.at("routes").items()
        ]


def targets(action: Part) -> list[Part]:
    """Return the names of the clusters that a route, or a TCP proxy, sends to."""
    weighted = action.at("weighted_clusters", "clusters").items()
    names = [each.at("name") for each in weighted if each.at("weight").value != 0]
    cluster = action.at("cluster")
    return [cluster, *names] if cluster.present else names


def takes_decision(route: Part) -> bool:
    """Whether the route's cluster is the one that x-llm-pool names."""
    return route.at("route", "cluster_header").text.lower() == POOL_HEADER


def _inner(given: Part) -> Part:
    """Return a route's configuration of a filter without the FilterConfig around it."""
    is_wrapped = given.at("@type").text.endswith(_FILTER_CONFIG)
    return given.at("config") if is_wrapped else given


def _listed(part: Part) -> list[Part]:
    # Envoy takes a single value for a list of it.
    return [part] if isinstance(part.value, dict) else part.items()
