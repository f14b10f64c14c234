"""The order of HTTP filters around those of this service.

Requests pass the filters from first to last, answers from last to first.
"""

import re
from collections.abc import Iterator, Sequence

from extproc.envoy.document import Finding, Part
from extproc.envoy.filter_review import waits_for_note
from extproc.envoy.gateway import GatewayFilter, RouteLevels
from extproc.envoy.pool_gateway import observes
from extproc.envoy.route_match import SampleRequest, matches

# Filters that may refuse a request, or answer it themselves (CORS).
_GATEKEEPERS = (
    "ApiKeyAuth", "BasicAuth", "BodySizeLimit", "Cors", "CsrfPolicy", "ExtAuthz",
    "JwtAuthentication", "LocalRateLimit", "OAuth2", "RBAC", "RateLimit",
    "RateLimitQuotaFilterConfig",
)  # fmt: skip
_HIDES_USAGE = re.compile(r"""["']hides_usage["']""")


def end_findings(filters: Sequence[GatewayFilter]) -> Iterator[Finding]:
    """Yield Envoy's router where it is not the last filter."""
    for each in filters[:-1]:
        if any(each.typed("Router")):
            yield Finding(
                each.part.path,
                f"Envoy refuses filters after {each.name}: move it to the end of the list",
            )


def order_findings(
    ours: Sequence[GatewayFilter],
    others: Sequence[GatewayFilter],
    levels: RouteLevels,
    request: SampleRequest,
) -> Iterator[Finding]:
    """Yield what is wrong with the order of the filters that run on a route."""
    running = [each for each in others if each.is_on(levels)]
    for each in ours:
        for other in running:
            if other.position > each.position and _keeps_gate(other, levels, request):
                yield Finding(
                    each.part.path,
                    f"{each.name} gets requests that {other.name} has not accepted yet: "
                    f"move it after {other.name}",
                )
            if other.position > each.position and _compresses(other) and _reads_answers(each):
                yield Finding(
                    other.part.path,
                    f"answers are compressed before {each.name} reads them: "
                    f"move {other.name} before {each.name}",
                )
        yield from _usage_findings(each, running)
    observers = [each for each in ours if observes(each)]
    for router in ours:
        if router not in observers:
            yield from _decision_findings(router, observers, running)


def _decision_findings(
    router: GatewayFilter, observers: Sequence[GatewayFilter], running: Sequence[GatewayFilter]
) -> Iterator[Finding]:
    """Yield filters on the wrong side of the one that has the service decide."""
    # What reads for the observers is to be moved behind the first of them anyway.
    first = min((each.position for each in observers), default=0)
    for other in (*observers, *(each for each in running if each.position > first)):
        if other.position < router.position and waits_for_note(other):
            yield Finding(
                other.part.path,
                f"{other.name} is skipped for all requests, as {router.name} decides after it: "
                f"move it after {router.name}",
            )
    for other in running:
        if other.position > router.position and _hides_usage(other):
            yield Finding(
                other.part.path,
                f"the service does not ask for usage, as {other.name}, which would hide it, has "
                f"not run yet: move it before {router.name}",
            )


def _hides_usage(other: GatewayFilter) -> bool:
    codes = [part.at("default_source_code", "inline_string") for part in other.typed("Lua")]
    codes += [part.at("inline_code") for part in other.typed("Lua")]
    return any(_HIDES_USAGE.search(code.text) for code in codes)


def _keeps_gate(other: GatewayFilter, levels: RouteLevels, request: SampleRequest) -> bool:
    for part in other.typed(*_GATEKEEPERS):
        if not part.at("@type").text.endswith(".JwtAuthentication"):
            return True
        if levels.settings_of(other.name) or _has_rule(part, request):
            return True
    return False


def _has_rule(jwt: Part, request: SampleRequest) -> bool:
    rules = jwt.at("rules").items()
    found = next((rule for rule in rules if matches(rule.at("match"), request)), None)
    return found is not None and (
        found.at("requires").present or found.at("requirement_name").present
    )


def _compresses(other: GatewayFilter) -> bool:
    for part in other.typed("Compressor"):
        answers = part.at("response_direction_config", "common_config", "enabled", "default_value")
        if answers.value is not False:
            return True
    return False


def _reads_answers(ours: GatewayFilter) -> bool:
    modes = (p.at("processing_mode") for p in ours.typed("ExternalProcessor"))
    return any(
        mode.at("response_body_mode").text not in ("", "NONE")
        or mode.at("response_trailer_mode").text == "SEND"
        for mode in modes
    )


def _usage_findings(ours: GatewayFilter, running: Sequence[GatewayFilter]) -> Iterator[Finding]:
    """Yield a finding if the observer waits for usage that no filter reads."""
    for part in ours.typed("ExternalProcessor"):
        modes = part.at("processing_mode")
        reads_body = modes.at("response_body_mode").text not in ("", "NONE")
        if part.at("observability_mode").value is not True or reads_body:
            continue
        readers = [each for each in running if any(each.typed("AiProtocolManager"))]
        if any(each.position > ours.position for each in readers):
            continue
        fix = "add envoy.filters.http.ai_protocol_manager there"
        if readers:
            fix = f"move {readers[0].name} after {ours.name}"
        yield Finding(modes.path, f"no filter after this one reads the usage of answers: {fix}")
