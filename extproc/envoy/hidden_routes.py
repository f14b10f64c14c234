"""Routes to the pools that no request reaches, behind a route of another application.

Only a route that takes every request to an inference path hides others: one with conditions of its
own on headers, which a request may not meet, does not.
"""

from collections.abc import Iterator

from extproc.envoy.document import Finding, Part
from extproc.envoy.gateway import RouteLevels, targets
from extproc.envoy.pool_gateway import PoolGateway, has_prompts
from extproc.envoy.route_match import (
    INFERENCE_PATHS,
    OUR_PREFIX,
    PATHS,
    SampleRequest,
    samples,
)


def hidden_findings(gateway: PoolGateway) -> Iterator[Finding]:
    """Yield each route that hides routes to the pools, once."""
    hidden = dict[str, Finding]()
    for levels in gateway.pool_routes:
        if has_prompts(levels.route):
            for request in samples(levels.route.at("match")):
                hider = _hider(levels, gateway, request)
                if hider is not None:
                    hidden.setdefault(hider.path, _finding(hider, request))
    yield from hidden.values()


def _hider(levels: RouteLevels, gateway: PoolGateway, request: SampleRequest) -> Part | None:
    """Return the route of another application that takes a request from this one, if any."""
    if not _is_inference(request):
        return None
    first = gateway.reached(levels.host, request)
    if first is None or gateway.fleet.serves(first) or _reads_ours(first):
        return None
    return first


def _is_inference(request: SampleRequest) -> bool:
    """Whether a sample is surely one that its route is for."""
    if request.match.at("path").present:
        return True
    return request.path.endswith(INFERENCE_PATHS) and request.is_exact


def _reads_ours(route: Part) -> bool:
    """Whether it has a condition on a header that the service sets: then it takes only some."""
    names = (header.at("name").text.lower() for header in route.at("match", "headers").items())
    return any(name.startswith(OUR_PREFIX) for name in names)


def _finding(hider: Part, request: SampleRequest) -> Finding:
    return Finding(
        hider.path,
        f"this route ({_described(hider)}) hides the routes to the pools that follow it from "
        f"requests to {request.path}: move those routes before it, part 3 of "
        "`dualpool config envoy --fragment`",
    )


def _described(route: Part) -> str:
    match = route.at("match")
    path = next((f"{key} {match.at(key).text}" for key in PATHS if match.at(key).present), "")
    path = path or f"regex {match.at('safe_regex', 'regex').text}"
    names = [f"cluster {name.text}" for name in targets(route.at("route"))]
    kinds = [key for key in ("redirect", "direct_response") if route.at(key).present]
    return ", ".join([path, *names[:1], *kinds])
