"""Compare an Envoy file with the settings.

Any bootstrap is accepted. Fields that it leaves out have Envoy's defaults; resources that it gets
by xDS are not checked. Only routes that lead to the pools are judged, and the filters on them:
other applications behind the same listener are none of this service's business.
"""

from collections.abc import Iterator
from itertools import chain

from extproc.config.addresses import host_port, worker_addresses
from extproc.config.settings import Settings
from extproc.envoy.cluster_review import pool_findings, service_findings
from extproc.envoy.document import Finding, Part
from extproc.envoy.filter_order import end_findings
from extproc.envoy.filter_review import filter_findings, observer_remark
from extproc.envoy.gateway import ManagedListener, RouteLevels, takes_decision, targets
from extproc.envoy.hidden_routes import hidden_findings
from extproc.envoy.pool_clusters import PoolClusters, pool_clusters, socket_addresses
from extproc.envoy.pool_gateway import PoolGateway, has_prompts
from extproc.envoy.retry_review import net_findings, net_remarks
from extproc.envoy.route_match import has_header, text_matches
from extproc.envoy.route_review import bypass, route_findings
from extproc.names import POOL_HEADER

# What `dualpool config envoy` names the service's cluster.
_SERVICE = "dualpool"


def review(settings: Settings, document: Part) -> tuple[Finding, ...]:
    """Return all findings, each once."""
    settings = settings.routed
    fleet = pool_clusters(document, settings)
    gateways = _gateways(fleet, settings, document)
    if not any(gateway.routers for gateway in gateways):
        text = (
            "no ext_proc filter calls the service: add one, see `dualpool config envoy`, or with "
            "--fragment what to paste into an Envoy that serves other applications too"
        )
        return (Finding("", text),)
    found = chain(
        *(_gateway_findings(gateway) for gateway in gateways),
        _tcp_findings(document, fleet),
        *(service_findings(gateway) for gateway in gateways if fleet.clusters),
        pool_findings(gateways, document, settings) if fleet.clusters else (),
    )
    # Aliases, and filters that share a cluster, repeat findings.
    return tuple(dict.fromkeys(found))


def remarks(settings: Settings, document: Part) -> tuple[Finding, ...]:
    """Return what is no fault, but costs more than it must or is not checked, each once."""
    settings = settings.routed
    gateways = _gateways(pool_clusters(document, settings), settings, document)
    observers = (observer_remark(o) for gateway in gateways for o in gateway.observers)
    nets = (remark for gateway in gateways for remark in net_remarks(gateway))
    return tuple(dict.fromkeys(each for each in chain(observers, nets) if each))


def _gateways(fleet: PoolClusters, settings: Settings, document: Part) -> list[PoolGateway]:
    services = _service_names(fleet, settings)
    gateways = [
        PoolGateway(ManagedListener(listener, manager), fleet, settings, services)
        for listener in document.at("static_resources", "listeners").items() or [document]
        for manager in listener.typed("HttpConnectionManager")
    ]
    if any(gateway.called for gateway in gateways):
        return gateways
    # Not by name, not by address, not by metadata: then each ext_proc filter may be it.
    every = frozenset(name for gateway in gateways for name in gateway.processor_clusters())
    return [PoolGateway(each.part, fleet, settings, every) for each in gateways]


def _service_names(fleet: PoolClusters, settings: Settings) -> frozenset[str]:
    grpc = settings.listen.grpc
    if grpc.startswith("unix:"):
        return frozenset({_SERVICE})
    ports = {host_port(text)[1] for text in worker_addresses(grpc, settings.workers)}
    wanted = {(settings.envoy.service, port) for port in ports}
    found = (n for n, part in fleet.clusters.items() if wanted & {*socket_addresses(part)})
    return frozenset({_SERVICE, *found})


def _gateway_findings(gateway: PoolGateway) -> Iterator[Finding]:
    routes = gateway.pool_routes
    if not gateway.routers:
        yield from _bypass_findings(gateway)
        return
    if not routes and not gateway.part.has_other_routes:
        path = gateway.part.manager.at("route_config", "virtual_hosts").path
        yield Finding(path, f"no route leads to a pool: add routes to {gateway.fleet.largest}")
    if not _strips(gateway.part.manager) and (
        not routes or any(_reads_decision(each.route) for each in routes)
    ):
        yield Finding(
            gateway.part.manager.at("early_header_mutation_extensions").path,
            "clients can choose their pool: remove x-llm-* before routes are matched",
        )
    if not routes:
        for each in gateway.ours:
            yield from filter_findings(each, gateway.settings, RouteLevels(*[Part("", None)] * 3))
    yield from end_findings(gateway.part.filters)
    hidden = [*hidden_findings(gateway)]
    yield from hidden
    for levels in routes:
        yield from route_findings(levels, gateway, {each.path for each in hidden})
    yield from net_findings(gateway)
    yield from _stranger_findings(gateway)


def _bypass_findings(gateway: PoolGateway) -> Iterator[Finding]:
    for levels in gateway.pool_routes:
        if has_prompts(levels.route):
            yield bypass(levels.route, "add the service's filters to this listener")
            return


def _tcp_findings(document: Part, fleet: PoolClusters) -> Iterator[Finding]:
    for listener in document.at("static_resources", "listeners").items():
        for proxy in listener.typed("TcpProxy"):
            if any(fleet.leads_to(name.text) for name in targets(proxy)):
                yield bypass(proxy, "a TCP proxy cannot call it")


def _strips(manager: Part) -> bool:
    internal = manager.at("route_config", "internal_only_headers").items()
    if any(header.text.lower() == POOL_HEADER for header in internal):
        return True
    for extension in manager.at("early_header_mutation_extensions").items():
        for mutation in extension.at("typed_config", "mutations").items():
            matcher = mutation.at("remove_on_match", "key_matcher")
            if mutation.at("remove").text == POOL_HEADER or text_matches(matcher, POOL_HEADER):
                return True
    return False


def _reads_decision(route: Part) -> bool:
    return takes_decision(route) or has_header(route.at("match"), POOL_HEADER)


def _stranger_findings(gateway: PoolGateway) -> Iterator[Finding]:
    """Yield the filters of this service that also run for routes of other applications."""
    strangers = [
        each
        for each in gateway.part.routes
        if targets(each.route.at("route")) and not gateway.fleet.serves(each.route)
    ]
    for each in gateway.ours:
        names = [targets(s.route.at("route"))[0].text for s in strangers if each.is_on(s)]
        if names:
            yield Finding(
                each.part.at("disabled").path,
                f"{each.name} also runs for requests to {names[0]!r}, which is no pool: "
                "set true, and enable the filter on the routes to the pools",
            )
