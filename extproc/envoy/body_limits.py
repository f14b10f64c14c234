"""Which bodies Envoy refuses on a route to the pools."""

from collections.abc import Iterator

from extproc.config.settings import MESSAGE_OVERHEAD
from extproc.envoy.document import Finding, Part
from extproc.envoy.gateway import GatewayFilter, RouteLevels
from extproc.envoy.pool_gateway import PoolGateway

# Envoy's default.
_BUFFER_BYTES = 1 << 20


def body_findings(levels: RouteLevels, gateway: PoolGateway) -> Iterator[Finding]:
    """Yield the limits that are below what the settings allow, or above what the service reads."""
    settings = gateway.settings
    limits = _body_limits(levels, gateway)
    wanted, message = settings.requests.max_body_bytes, settings.listen.max_message_bytes
    for path, limit in limits.items():
        if limit < wanted:
            yield Finding(path, f"a body above {limit} bytes gets 413: set {wanted}")
    largest = min(limits.values())
    if largest + MESSAGE_OVERHEAD > message:
        yield Finding(
            min(limits, key=lambda path: limits[path]),
            f"a body of {largest} bytes exceeds listen.max_message_bytes, {message}: set {wanted}",
        )


def _body_limits(levels: RouteLevels, gateway: PoolGateway) -> dict[str, int]:
    """Return the limits in bytes of a request's body on this route, by path."""
    lifted = next((part for part in _lifted(levels, gateway) if part.number is not None), None)
    connection = gateway.part.listener.at("per_connection_buffer_limit_bytes")
    size = connection.number or _BUFFER_BYTES
    if lifted is not None:
        limits = {lifted.path: max(size, lifted.number or 0)}
    else:
        unset = connection if _is_oldest(gateway) else levels.host.at("request_body_buffer_limit")
        limits = {unset.path: size}
    for each in gateway.others:
        if each.is_on(levels):
            limits |= {part.path: part.number or 0 for part in _caps(each, levels)}
    return limits


def _lifted(levels: RouteLevels, gateway: PoolGateway) -> Iterator[Part]:
    """Yield what replaces the listener's limit on a route."""
    if not _is_oldest(gateway):
        yield from (part.at("request_body_buffer_limit") for part in (levels.route, levels.host))


def _is_oldest(gateway: PoolGateway) -> bool:
    # Envoy 1.36 does not apply request_body_buffer_limit to ext_proc.
    return gateway.settings.envoy.version == "1.36"


def _caps(each: GatewayFilter, levels: RouteLevels) -> Iterator[Part]:
    """Yield the limits of a filter that refuses larger bodies."""
    for given in levels.settings_of(each.name):
        own = given.at("buffer", "max_request_bytes")
        if own.number is not None:
            yield own
            return
        if given.at("check_settings", "disable_request_body_buffering").value is True:
            return
    found = [part.at("max_request_bytes") for part in each.typed("BodySizeLimit", "Buffer")]
    for part in each.typed("ExtAuthz"):
        body = part.at("with_request_body")
        if body.at("allow_partial_message").value is not True:
            found.append(body.at("max_request_bytes"))
    yield from (part for part in found if part.number is not None)
