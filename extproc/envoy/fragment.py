"""The parts that join this service to an Envoy which serves other applications too.

They are taken from the whole configuration, so that both stay the same, and changed in three ways:
the filters are off unless a route enables them, limits and headers are set on the routes alone, and
the routes are below a path prefix.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from extproc.config.errors import UserError
from extproc.config.settings import Settings, TracingSettings
from extproc.envoy.document import Part
from extproc.envoy.render import render_envoy

_PREFIX = re.compile(r"/|(/[A-Za-z0-9._~-]+)+/")
_ENABLED = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
# Envoy's own last filter, and one that would refuse other applications' bodies.
_LISTENER_WIDE = (".Router", ".BodySizeLimit")
# A shorter part is written out each time.
_SHARED_CHARACTERS = 150

_INTRODUCTION = """\
# To join {pools} to an Envoy that serves other applications: written by `dualpool config envoy
# --fragment`. Paste each part into your own file; docs/join-your-envoy.md shows a whole example.
# Check the result: dualpool check SETTINGS --envoy YOUR_FILE
"""
_OLD_LIMIT = """\
# Envoy 1.36 ignores request_body_buffer_limit here. Set per_connection_buffer_limit_bytes: {bytes}
# on the listener too, or larger bodies than 1 MiB get 413.
"""
_HEADINGS = {
    "early_header_mutation_extensions": (
        "Into the HTTP connection manager. Clients cannot choose their pool; it removes nothing\n"
        "# but what this service sets."
    ),
    "http_filters": (
        "Into http_filters, in this order: after authentication, rate limits and compression,\n"
        "# before envoy.filters.http.router. All are off unless a route enables them."
    ),
    "routes": (
        "Into the virtual host, before any route that matches the same paths. Clients use\n"
        "# https://your-host{prefix}v1 as their base URL."
    ),
    "clusters": "Into static_resources.",
}


class FragmentError(UserError):
    """The path prefix cannot be used; the text says what may be."""


def render_fragment(settings: Settings, prefix: str) -> str:
    """Return the parts as YAML, with the routes below `prefix`.

    Raises RenderError, or FragmentError unless the prefix is a path that starts and ends with
    a slash, and stands before the API's own /v1/.
    """
    if not _PREFIX.fullmatch(prefix):
        raise FragmentError(
            f"--prefix: {prefix!r} is not allowed: a path that starts and ends with /"
        )
    if prefix.endswith("/v1/"):
        raise FragmentError(
            f"--prefix: {prefix!r} is not allowed: what stands before the API's own /v1/, "
            f"{prefix.removesuffix('v1/')!r} for clients of https://your-host{prefix[:-1]}"
        )
    parts = fragment_parts(whole_configuration(settings), prefix)
    pools = ", ".join(pool.name for pool in settings.pools)
    texts = [_INTRODUCTION.format(pools=pools)]
    if settings.envoy.version == "1.36":
        texts.append(_OLD_LIMIT.format(bytes=settings.requests.max_body_bytes))
    for number, (key, heading) in enumerate(_HEADINGS.items(), 1):
        text = f"\n# {number}. {heading.format(prefix=prefix)}\n"
        texts.append(text + dump({key: parts[key]}, is_shared=key == "routes"))
    return "".join(texts)


def whole_configuration(settings: Settings) -> Part:
    """Return Envoy's whole configuration; raises RenderError."""
    # What traces is the connection manager, which is not a part of it.
    untraced = settings.model_copy(update={"tracing": TracingSettings()})
    return Part("", yaml.safe_load(render_envoy(untraced)))


def connection_manager(document: Part) -> Part:
    """Return the connection manager of the whole configuration's API."""
    listener = next(iter(document.at("static_resources", "listeners").items()))
    return next(listener.typed("HttpConnectionManager"))


def fragment_parts(document: Part, prefix: str) -> dict[str, list[Any]]:
    """Return the parts of the whole configuration by the key of Envoy's that they belong to."""
    manager = connection_manager(document)
    filters = _filters(manager)
    [host] = manager.at("route_config", "virtual_hosts").items()
    return {
        "early_header_mutation_extensions": _strips(),
        "http_filters": filters,
        "routes": [
            _route(route.value, host, manager, filters, prefix)
            for route in host.at("routes").items()
        ],
        "clusters": _clusters(document),
    }


def _strips() -> list[Any]:
    """Return the removal of x-llm-* alone; that of other headers could break applications."""
    package = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3"
    matcher = {"safe_regex": {"regex": "(?i)x[-_]llm[-_].*"}}
    return [
        {
            "name": "envoy.http.early_header_mutation.header_mutation",
            "typed_config": {
                "@type": f"{package}.HeaderMutation",
                "mutations": [{"remove_on_match": {"key_matcher": matcher}}],
            },
        }
    ]


def _filters(manager: Part) -> list[dict[str, Any]]:
    return [
        {
            "name": _filter_name(each),
            "disabled": True,
            "typed_config": each.at("typed_config").value,
        }
        for each in manager.at("http_filters").items()
        if not each.at("typed_config", "@type").text.endswith(_LISTENER_WIDE)
    ]


def _filter_name(each: Part) -> str:
    # Names of their own, since an Envoy may have another filter of the same type.
    return f"llm.{each.at('name').text.removeprefix('envoy.filters.http.').removeprefix('llm.')}"


def _route(
    route: Any, host: Part, manager: Part, filters: list[dict[str, Any]], prefix: str
) -> dict[str, Any]:
    given = {
        _own_name(key): value for key, value in route.get("typed_per_filter_config", {}).items()
    }
    enabled = {each["name"]: given.get(each["name"], _ENABLED) for each in filters}
    action = dict(route.get("route", {}))
    if action and (idle := manager.at("stream_idle_timeout").text):
        action.setdefault("idle_timeout", idle)
    if action and prefix != "/":
        pattern = {"regex": f"^{re.escape(prefix)}"}
        action["regex_rewrite"] = {"pattern": pattern, "substitution": "/"}
    own = {key: value for key, value in route.items() if key not in ("name", "match")}
    return {
        "name": f"llm_{route['name']}",
        "match": _below(route["match"], prefix),
        **_shared_values(host, manager),
        **own,
        "typed_per_filter_config": enabled,
        **({"route": action} if action else {}),
    }


def _own_name(name: str) -> str:
    return _filter_name(Part("", {"name": name}))


def _shared_values(host: Part, manager: Part) -> dict[str, Any]:
    """Return what the whole configuration sets for all routes."""
    configuration = manager.at("route_config")
    values = {
        "request_headers_to_remove": configuration.at("request_headers_to_remove").value,
        "response_headers_to_add": host.at("response_headers_to_add").value,
        "request_body_buffer_limit": host.at("request_body_buffer_limit").value,
    }
    return {key: value for key, value in values.items() if value is not None}


def _below(match: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return a `match` with its path below the prefix."""
    below = dict(match)
    start = prefix.rstrip("/")
    for key in ("prefix", "path", "path_separated_prefix"):
        if key in match:
            below[key] = start + match[key]
    if regex := match.get("safe_regex", {}).get("regex"):
        below["safe_regex"] = {**match["safe_regex"], "regex": f"{re.escape(start)}(?:{regex})"}
    return below


def _clusters(document: Part) -> list[Any]:
    found = document.at("static_resources", "clusters").items()
    return [each.value for each in found if each.at("name").text != "admin"]


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


class _RouteDumper(_Dumper):
    """Also writes what routes share once, as a YAML anchor."""

    def ignore_aliases(self, data: Any) -> bool:
        return yaml.SafeDumper.ignore_aliases(self, data)

    def generate_anchor(self, node: yaml.Node) -> str:  # noqa: ARG002
        self.last_anchor_id += 1
        return f"llm-{self.last_anchor_id}"


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump(value: object, *, is_shared: bool = False) -> str:
    """Return a value as YAML; `is_shared` writes equal parts of some size once, with an anchor."""
    return yaml.dump(
        _share(value, {}),
        Dumper=_RouteDumper if is_shared else _Dumper,
        sort_keys=False,
        width=120,
        default_flow_style=None,
    )


def _share(value: object, known: dict[str, object]) -> object:
    """Return the value with equal parts of some size made one object."""
    if isinstance(value, list):
        value = [_share(each, known) for each in value]
    elif isinstance(value, dict):
        value = {key: _share(each, known) for key, each in value.items()}
    text = str(value)
    return known.setdefault(text, value) if len(text) > _SHARED_CHARACTERS else value
