"""The compared forms: the rendered configuration of Envoy, and changes to it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from extproc.config.settings import Form

Document = dict[str, Any]

_OURS: Final = (
    "envoy.filters.http.lua",
    "envoy.filters.http.ext_proc",
    "llm.observer",
    "envoy.filters.http.ai_protocol_manager",
)
_ROUTER: Final = "envoy.filters.http.ext_proc"


@dataclass(frozen=True, slots=True)
class FormRow:
    """One row of a table.

    states_usage: whether the client itself asks for usage. null: beside the server that decides
    nothing, instead of the service.
    """

    name: str
    form: Form
    change: Callable[[Document], Document]
    states_usage: bool = True
    null: bool = False


def unchanged(document: Document) -> Document:
    """Return the configuration as rendered."""
    return document


def bare(document: Document) -> Document:
    """Remove our filters and the service's cluster: the same Envoy without Dualpool."""
    manager, resources = _manager(document), document["static_resources"]
    manager["http_filters"] = [f for f in manager["http_filters"] if f["name"] not in _OURS]
    resources["clusters"] = [c for c in resources["clusters"] if c["name"] != "dualpool"]
    return document


def deferred(document: Document) -> Document:
    """Stream the body; the service delays its answer to the headers instead."""
    processor = router(document)
    processor["processing_mode"]["request_body_mode"] = "STREAMED"
    processor["send_body_without_waiting_for_header_response"] = True
    return document


def deciding_only(document: Document) -> Document:
    """Keep only the router filter: the cost of the request path."""
    manager = _manager(document)
    others = [name for name in _OURS if name != _ROUTER]
    manager["http_filters"] = [f for f in manager["http_filters"] if f["name"] not in others]
    return document


def without_health_checks(document: Document) -> Document:
    """Remove the checks of the service: the servers that it is compared with know no other call."""
    for cluster in document["static_resources"]["clusters"]:
        if cluster["name"] == "dualpool":
            del cluster["health_checks"]
    return document


def router(document: Document) -> Document:
    """Return the configuration of the filter that requests the decision."""
    filters = {each["name"]: each for each in _manager(document)["http_filters"]}
    config: Document = filters[_ROUTER]["typed_config"]
    return config


def _manager(document: Document) -> Document:
    [listener] = document["static_resources"]["listeners"]
    config: Document = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return config


STREAMS: Final = (
    FormRow("none", Form.OBSERVED, bare),
    FormRow("observed", Form.OBSERVED, unchanged),
    FormRow("trailers, O(1)", Form.TRAILERS, unchanged),
    FormRow("single", Form.SINGLE, unchanged),
    FormRow("observed, usage hidden", Form.OBSERVED, unchanged, states_usage=False),
    FormRow("observed, C++ null", Form.OBSERVED, unchanged, null=True),
    FormRow("trailers, C++ null", Form.TRAILERS, unchanged, null=True),
)
"""Forms of observing answers."""

REQUESTS: Final = (
    FormRow("none", Form.OBSERVED, bare),
    FormRow("BUFFERED", Form.OBSERVED, deciding_only),
    FormRow("deferred", Form.OBSERVED, lambda document: deferred(deciding_only(document))),
)
"""Forms of receiving request bodies."""
