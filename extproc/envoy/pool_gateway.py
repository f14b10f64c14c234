"""A connection manager of an Envoy file, seen by who wants to reach the pools through it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from extproc.config.settings import Settings
from extproc.envoy.document import Part
from extproc.envoy.gateway import GatewayFilter, ManagedListener, Processor, RouteLevels
from extproc.envoy.pool_clusters import PoolClusters
from extproc.envoy.route_match import (
    SampleRequest,
    accepts_header,
    covers,
    has_header,
    has_path,
    is_certain,
)
from extproc.envoy.route_table import RouteTable
from extproc.names import POOL_HEADER

# Paths of requests without a prompt, which need no decision.
_PLAIN_PATHS = ("/health", "/load", "/metrics", "/ping", "/v1/models", "/version")


@dataclass(frozen=True)
class PoolGateway:
    """A connection manager, and what its routes and filters are compared with.

    services: the clusters whose ext_proc filters are taken for this service's.
    """

    part: ManagedListener
    fleet: PoolClusters
    settings: Settings
    services: frozenset[str]

    @property
    def called(self) -> bool:
        """Whether a filter is known to call the service."""
        return any(self.ours)

    def processor_clusters(self) -> Iterator[str]:
        """Yield the cluster of each ext_proc filter."""
        for each in self.part.filters:
            for part in each.typed("ExternalProcessor"):
                yield part.at("grpc_service", "envoy_grpc", "cluster_name").text

    @cached_property
    def ours(self) -> list[GatewayFilter]:
        """The filters that call the service."""
        return [
            each
            for each in self.part.filters
            if any(Processor(p).calls(self.services) for p in each.typed("ExternalProcessor"))
        ]

    @cached_property
    def routers(self) -> list[GatewayFilter]:
        """Those of them that ask it for a pool."""
        return [each for each in self.ours if not observes(each)]

    @cached_property
    def observers(self) -> list[GatewayFilter]:
        """Those to which Envoy only shows traffic."""
        return [each for each in self.ours if observes(each)]

    @cached_property
    def others(self) -> list[GatewayFilter]:
        """The filters that do not call the service."""
        known = {each.position for each in self.ours}
        return [each for each in self.part.filters if each.position not in known]

    @cached_property
    def pool_routes(self) -> list[RouteLevels]:
        """The routes that lead to a pool."""
        return [each for each in self.part.routes if self.fleet.serves(each.route)]

    def reached(self, host: Part, request: SampleRequest) -> Part | None:
        """Return the route of a virtual host that requests like this one take.

        One of another application with conditions that some of them do not meet is passed over.
        """
        for route in self.matching(host, request):
            if self.fleet.serves(route) or is_certain(route.at("match"), request):
                return route
        return None

    def decided(self, host: Part, request: SampleRequest) -> list[Part]:
        """Return the routes that read the decision of a request and match it, in order.

        Where the first route that reads decisions on its path is only for some paths, as Envoy 1.40
        has them for messages, one for more paths is not what its requests are meant to take.
        """
        first = self.first_for_decisions(host, request)
        return [
            each
            for each in self.matching(host, request)
            if has_header(each.at("match"), POOL_HEADER)
            and first is not None
            and covers(first.at("match"), each.at("match"))
        ]

    def first_for_decisions(self, host: Part, request: SampleRequest) -> Part | None:
        """Return the first route on the path of a request that reads decisions, of any pool."""
        for route in host.at("routes").items():
            match = route.at("match")
            if (
                has_header(match, POOL_HEADER)
                and has_path(match, request)
                and any(accepts_header(match, POOL_HEADER, pool) for pool in self.fleet.pools)
            ):
                return route
        return None

    def matching(self, host: Part, request: SampleRequest) -> Iterator[Part]:
        """Yield the routes of a virtual host that match a request, in order."""
        return self._tables[host.path].matching(request)

    @cached_property
    def _tables(self) -> dict[str, RouteTable]:
        return {host.path: RouteTable(host.at("routes").items()) for host in self.part.hosts}


def observes(each: GatewayFilter) -> bool:
    """Whether Envoy only shows traffic to a filter of this service."""
    return all(Processor(part).observes for part in each.typed("ExternalProcessor"))


def has_prompts(route: Part) -> bool:
    """Whether requests with prompts can take a route."""
    match = route.at("match")
    if not accepts_header(match, ":method", "POST"):
        return False
    path = match.at("path").text or match.at("prefix").text
    rewritten = route.at("route", "prefix_rewrite").text or path
    return not rewritten.startswith(_PLAIN_PATHS)
