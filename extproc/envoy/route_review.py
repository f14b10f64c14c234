"""Judge a route to the pools: how requests get there, and where decisions lead them."""

from collections.abc import Collection, Iterator

from extproc.config.settings import FailOpen
from extproc.envoy.body_limits import body_findings
from extproc.envoy.cluster_review import retry_findings
from extproc.envoy.document import Finding, Part
from extproc.envoy.filter_order import order_findings
from extproc.envoy.filter_review import filter_findings
from extproc.envoy.gateway import GatewayFilter, Processor, RouteLevels, takes_decision, targets
from extproc.envoy.pool_gateway import PoolGateway, has_prompts
from extproc.envoy.route_match import (
    SampleRequest,
    has_header,
    samples,
)
from extproc.names import POOL_HEADER

# Envoy's default.
_STREAM_IDLE_S = 300.0
# No answer takes longer.
_ANSWER_S = 3600.0


def route_findings(
    levels: RouteLevels, gateway: PoolGateway, hiders: Collection[str]
) -> Iterator[Finding]:
    """Yield what is wrong with a route that leads to a pool.

    hiders: the paths of routes that have a finding of their own, as they hide routes to the pools.
    """
    if not has_prompts(levels.route):
        return
    yield from _timeout_findings(levels, gateway.part.manager)
    yield from retry_findings(levels.route, gateway.fleet)
    for request in samples(levels.route.at("match")):
        reached = gateway.reached(levels.host, request)
        if reached is not None and reached.path == levels.route.path:
            yield from _request_findings(levels, gateway, request, hiders)


def _request_findings(
    levels: RouteLevels, gateway: PoolGateway, request: SampleRequest, hiders: Collection[str]
) -> Iterator[Finding]:
    routes, largest = levels.host.at("routes"), gateway.fleet.largest
    entry = gateway.reached(levels.host, request.undecided())
    if entry is not None and entry.path in hiders:
        return
    if entry is None or not gateway.fleet.serves(entry) or takes_decision(entry):
        yield Finding(
            routes.path,
            f"no route matches requests without x-llm-pool: add a last one to {largest}",
        )
    elif entry.path == levels.route.path:
        yield from _entry_findings(levels, gateway, request)


def _entry_findings(
    levels: RouteLevels, gateway: PoolGateway, request: SampleRequest
) -> Iterator[Finding]:
    """Judge a route that requests take before the service has chosen a pool."""
    route, fleet = levels.route, gateway.fleet
    by_size = has_header(route.at("match"), "content-length")
    to_largest = fleet.prefers(route, fleet.largest)
    if not by_size and not to_largest:
        cluster = next(iter(targets(route.at("route"))))
        yield Finding(
            cluster.path,
            f"requests without x-llm-pool go to {cluster.text!r}: "
            f"set {fleet.largest!r}, the largest pool",
        )
    if by_size:
        yield from _size_findings(route, gateway)
    if by_size and to_largest:
        # A large body may go to the largest pool without a decision, or by its head alone.
        yield from _large_findings(route, gateway)
        return
    routers = [each for each in gateway.routers if each.is_on(levels)]
    if not routers:
        yield bypass(route, f"enable {gateway.routers[0].name} on this route")
        return
    yield from _own_filter_findings(levels, gateway, request)
    if any(_buffers(p) for each in routers for p in each.processors(levels)):
        yield from body_findings(levels, gateway)
    for pool in fleet.others:
        yield from _decision_findings(levels, gateway, request.with_pool(pool), pool)


def _size_findings(route: Part, gateway: PoolGateway) -> Iterator[Finding]:
    """Yield bodies that a smaller pool gets by their size alone, against the settings."""
    envoy, ends = gateway.settings.envoy, _size_bounds(route, "end")
    for pool in (pool for row in gateway.settings.fleet for pool in row.pools[:-1]):
        if not gateway.fleet.prefers(route, pool.name):
            continue
        if envoy.fail_open is FailOpen.LARGEST:
            yield Finding(route.path, "envoy.fail_open is largest: remove this route")
            return
        most = envoy.undecided_bytes(pool)
        for end in ends:
            if end.number is not None and end.number > most:
                yield Finding(
                    end.path, f"{end.number} is more than pools.{pool.name} permits: set {most}"
                )


def _large_findings(route: Part, gateway: PoolGateway) -> Iterator[Finding]:
    """Yield the lengths from which on a body is not read, where the settings state another."""
    most = gateway.settings.most_read_bytes
    for start in _size_bounds(route, "start"):
        if not most:
            yield Finding(route.path, "envoy.large_body_bytes is 0: remove this route")
        elif start.number is not None and start.number != most + 1:
            text = f"{start.number} differs from envoy.large_body_bytes: set {most + 1}"
            yield Finding(start.path, text)


def _size_bounds(route: Part, bound: str) -> list[Part]:
    """Return a bound of each condition on the length of a body."""
    return [
        header.at("range_match", bound)
        for header in route.at("match", "headers").items()
        if header.at("name").text.lower() == "content-length"
    ]


def _own_filter_findings(
    levels: RouteLevels, gateway: PoolGateway, request: SampleRequest
) -> Iterator[Finding]:
    running = [each for each in gateway.ours if each.is_on(levels)]
    for each in running:
        yield from filter_findings(each, gateway.settings, levels)
    yield from _answer_findings(running, gateway, levels)
    yield from order_findings(running, gateway.others, levels, request)


def _decision_findings(
    levels: RouteLevels, gateway: PoolGateway, request: SampleRequest, pool: str
) -> Iterator[Finding]:
    """Judge where a request goes once the service has chosen this pool for it."""
    routes = levels.host.at("routes")
    chosen = gateway.reached(levels.host, request)
    if chosen is None or takes_decision(chosen) or gateway.fleet.prefers(chosen, pool):
        return
    if has_header(chosen.at("match"), POOL_HEADER):
        if any(gateway.fleet.is_open(name.text) for name in targets(chosen.at("route"))):
            return
        path = chosen.at("route", "cluster").path
        yield Finding(path, f"requests with x-llm-pool: {pool} go to another cluster: set {pool!r}")
        return
    if gateway.decided(levels.host, request):
        yield Finding(
            chosen.path, f"this route hides that for x-llm-pool: {pool}: move it behind that one"
        )
    elif (first := gateway.first_for_decisions(levels.host, request)) is not None:
        text = f"no route on the paths of this one matches x-llm-pool: {pool}: add one"
        yield Finding(first.path, text)
    else:
        yield Finding(routes.path, f"no route matches x-llm-pool: {pool}: add one")


def _answer_findings(
    running: list[GatewayFilter], gateway: PoolGateway, levels: RouteLevels
) -> Iterator[Finding]:
    processors = [p for each in running for p in each.processors(levels)]
    modes = [p.at("processing_mode", "response_body_mode").text for p in processors]
    if any(p.observes for p in processors) or any(mode not in ("", "NONE") for mode in modes):
        return
    observers = [each.name for each in gateway.observers]
    fix = f"enable {observers[0]} on this route" if observers else "add the observer filter"
    yield Finding(levels.route.path, f"the service learns nothing from these answers: {fix}")


def _buffers(processor: Processor) -> bool:
    return (
        not processor.observes
        and processor.at("processing_mode", "request_body_mode").text == "BUFFERED"
    )


def _timeout_findings(levels: RouteLevels, manager: Part) -> Iterator[Finding]:
    action = levels.route.at("route")
    timeout = action.at("timeout")
    if timeout.seconds is None or 0 < timeout.seconds < _ANSWER_S:
        yield Finding(
            timeout.path, f"long answers are cut off after {timeout.text or '15s'}: set 0s"
        )
    lifetime = action.at("max_stream_duration", "max_stream_duration")
    if not lifetime.present:
        lifetime = manager.at("common_http_protocol_options", "max_stream_duration")
    if lifetime.seconds:
        own = action.at("max_stream_duration", "max_stream_duration").path
        yield Finding(own, f"long answers are cut off after {lifetime.text}: set 0s")
    idle = action.at("idle_timeout")
    if not idle.present:
        idle = manager.at("stream_idle_timeout")
    if idle.seconds and idle.seconds < _STREAM_IDLE_S:
        yield Finding(
            action.at("idle_timeout").path,
            f"an answer that is silent for {idle.text} is cut off: set 600s or 0s",
        )


def bypass(part: Part, fix: str) -> Finding:
    """Return the finding of a way to the pools that does not ask the service."""
    return Finding(part.path, f"requests reach a pool without the service: {fix}")
