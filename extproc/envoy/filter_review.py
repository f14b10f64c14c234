"""Judge the ext_proc filters of this service as they are on a route."""

from collections.abc import Iterator

from extproc.config.settings import Settings, StickyBy
from extproc.envoy.document import Finding, Part
from extproc.envoy.gateway import GatewayFilter, Processor, RouteLevels
from extproc.names import NAMESPACE, NOTE, USAGE_METADATA

# Envoy's default.
_MESSAGE_TIMEOUT_S = 0.2

_ROUTING_MODES = ("BUFFERED", "FULL_DUPLEX_STREAMED")


def filter_findings(
    each: GatewayFilter, settings: Settings, levels: RouteLevels
) -> Iterator[Finding]:
    """Yield what is wrong with the filter's own configuration."""
    for processor in each.processors(levels):
        if processor.at("failure_mode_allow").value is not True:
            path = processor.at("failure_mode_allow").path
            yield Finding(path, "requests fail while the service is down: set true")
        if processor.observes:
            yield from _matcher_findings(each)
            yield from _observer_findings(processor)
        else:
            yield from _router_findings(processor, settings)


def observer_remark(each: GatewayFilter) -> Finding | None:
    """Return that an observing filter runs for all requests, if it does."""
    if any(each.typed("ExtensionWithMatcher")):
        return None
    return Finding(
        each.part.path,
        f"{each.name} runs for every request, not only for those whose answers the service wants: "
        "wrap it as `dualpool config envoy` does",
    )


def waits_for_note(each: GatewayFilter) -> bool:
    """Whether a filter runs only for requests that the service has made a note of."""
    return any(map(_asks_for_note, each.typed("ExtensionWithMatcher")))


def _matcher_findings(each: GatewayFilter) -> Iterator[Finding]:
    for wrapper in each.typed("ExtensionWithMatcher"):
        if not _asks_for_note(wrapper):
            text = "the service cannot choose whose answers it sees: match its note, as "
            yield Finding(wrapper.at("xds_matcher").path, f"{text}`dualpool config envoy` does")


def _asks_for_note(wrapper: Part) -> bool:
    return any(map(_is_note, wrapper.typed("DynamicMetadataInput")))


def _is_note(source: Part) -> bool:
    path = [each.at("key").text for each in source.at("path").items()]
    return source.at("filter").text == NAMESPACE and path == [NOTE]


def _observer_findings(processor: Processor) -> Iterator[Finding]:
    yield from _namespace_findings(processor, "forwarding_namespaces", "untyped", "llm")
    modes = processor.at("processing_mode")
    if modes.at("response_body_mode").text in ("", "NONE"):
        yield from _namespace_findings(processor, "forwarding_namespaces", "typed", USAGE_METADATA)
        if modes.at("response_trailer_mode").text != "SEND":
            path = modes.at("response_trailer_mode").path
            yield Finding(path, "the service does not get the usage: set SEND")


def _router_findings(processor: Processor, settings: Settings) -> Iterator[Finding]:
    yield from _namespace_findings(processor, "receiving_namespaces", "untyped", "llm")
    read = {settings.tenants.header, settings.categories.header}
    read |= {settings.sticky.header} if settings.sticky.by is StickyBy.HEADER else set()
    for hidden in processor.at("forward_rules", "disallowed_headers", "patterns").items():
        name = hidden.at("exact").text
        if name and name in read:
            yield Finding(hidden.path, f"the service does not get the header {name}: remove it")
    modes = processor.at("processing_mode")
    if (head := modes.at("request_header_mode")).text == "SKIP":
        yield Finding(head.path, "the headers are sent on before the body is read: set SEND")
    body = modes.at("request_body_mode")
    if body.text not in _ROUTING_MODES:
        yield Finding(body.path, f"{body.text or 'NONE'} cannot change the route: set BUFFERED")
    timeout = processor.at("message_timeout")
    wanted = settings.envoy.message_timeout_ms / 1000
    seconds = _MESSAGE_TIMEOUT_S if timeout.seconds is None else timeout.seconds
    if seconds != wanted:
        yield Finding(
            timeout.path, f"{seconds:g}s differs from envoy.message_timeout_ms: set {wanted:g}s"
        )


def _namespace_findings(
    processor: Processor, direction: str, kind: str, name: str
) -> Iterator[Finding]:
    names = processor.at("metadata_options", direction, kind)
    if all(each.text != name for each in names.items()):
        yield Finding(names.path, f"the routing decision or the usage is lost: add {name}")
