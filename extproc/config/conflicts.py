"""Values of the settings that are valid each by itself and contradict each other."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from extproc.config.addresses import ANY_HOST, MAX_SOCKET_PATH_BYTES, host_port, worker_addresses
from extproc.config.keys import Place, dotted
from extproc.config.settings import (
    ANY_MODEL,
    MAX_POOLS,
    MESSAGE_OVERHEAD,
    NEWEST_ENVOY,
    EnvoySettings,
    Form,
    ListenSettings,
    RequestSettings,
    RowSettings,
    Settings,
    StickyBy,
    Transport,
)

_LISTEN: tuple[Place, ...] = (("listen", "grpc"), ("listen", "http"), ("workers",))
_ENVOYS: tuple[Place, ...] = (("envoy", "listen"), ("envoy", "admin"), ("envoy", "metrics"))
_TLS: tuple[tuple[Place, tuple[Place, ...]], ...] = (  # a file, and those that it requires
    (("listen", "tls_cert"), (("listen", "tls_key"),)),
    (("listen", "tls_key"), (("listen", "tls_cert"),)),
    (("listen", "tls_client_ca"), (("listen", "tls_cert"), ("listen", "tls_key"))),
    (("envoy", "tls_cert"), (("envoy", "tls_key"), ("envoy", "tls_ca"))),
    (("envoy", "tls_key"), (("envoy", "tls_cert"), ("envoy", "tls_ca"))),
)
# What the generated configuration calls other things by.
_RESERVED = frozenset({"dualpool", "undecided"})
_FALLBACK = "-fallback"
_TRANSPORT: Place = ("listen", "transport")
_WORKERS: Place = ("workers",)
_STICKY: Place = ("sticky", "by")
_KEY_FILE: Place = ("tenants", "key_file")
_PASSWORD: Place = ("state_password_file",)
_CA: Place = ("state_ca_file",)
_MESSAGE: Place = ("listen", "max_message_bytes")
_BODY: Place = ("requests", "max_body_bytes")
_FORM: Place = ("envoy", "form")
_VERSION: Place = ("envoy", "version")
_DEFAULTS: Mapping[Place, Any] = {
    ("listen", "grpc"): ListenSettings().grpc,
    ("listen", "http"): ListenSettings().http,
    ("state",): Settings().state,
    ("workers",): Settings().workers,
    _MESSAGE: ListenSettings().max_message_bytes,
    _BODY: RequestSettings().max_body_bytes,
    _VERSION: EnvoySettings().version,
    **{place: getattr(EnvoySettings(), str(place[-1])) for place in _ENVOYS},
}


def conflicts(values: Mapping[Place, Any]) -> Iterator[tuple[Place, Any, str]]:
    """Yield the values that contradict each other: the place, the value, and what is allowed.

    `values` are those of a file by place. A value that is invalid by itself is None, and a place
    with its default is absent, so that no fault hides another.
    """
    values = {**_DEFAULTS, **values}
    yield from _listen_conflicts(values)
    yield from _envoy_conflicts(values)
    yield from _tls_conflicts(values)
    if values.get(_TRANSPORT) == Transport.H2 and values.get(("listen", "tls_cert")):
        yield _TRANSPORT, Transport.H2.value, "auto or grpc with listen.tls_cert"
    if values.get(_TRANSPORT) == Transport.H2 and values.get(("tracing", "otlp")):
        yield _TRANSPORT, Transport.H2.value, "auto or grpc with tracing.otlp"
    if values.get(("tracing", "usage")) and values.get(("tracing", "otlp"), "") == "":
        yield ("tracing", "usage"), True, "false without tracing.otlp, the receiver"
    yield from _body_conflicts(values[_BODY], values[_MESSAGE])
    version = values[_VERSION]
    if values.get(_FORM) == Form.TRAILERS and version not in {None, NEWEST_ENVOY}:
        allowed = f"observed or auto with envoy.version {version}; trailers needs {NEWEST_ENVOY}"
        yield _FORM, Form.TRAILERS.value, allowed
    if values.get(("shadow",)) and values.get(("rows",)):
        yield ("shadow",), True, "false with rows: without a decision Envoy finds no row"
    if values.get(("shadow",)) and values.get(("load", "spill")):
        yield ("load", "spill"), True, "false with shadow, as nothing moves"
    sticky = values.get(_STICKY)
    if sticky not in (None, StickyBy.NONE) and (values[_WORKERS] or 1) > 1:
        yield _STICKY, sticky, "none with workers above 1, as each would know other conversations"
    yield from _row_conflicts(values)
    yield from _model_conflicts(values)
    yield from _state_conflicts(values)


def _listen_conflicts(values: Mapping[Place, Any]) -> Iterator[tuple[Place, Any, str]]:
    grpc, http, workers = (values[place] for place in _LISTEN)
    if grpc is None or workers is None:
        return
    last = worker_addresses(grpc, workers)[-1]
    if grpc.startswith("unix:"):
        if len(last.removeprefix("unix:")) > MAX_SOCKET_PATH_BYTES:
            yield ("listen", "grpc"), grpc, f"a path of at most {MAX_SOCKET_PATH_BYTES} bytes"
        return
    low, high = host_port(grpc)[1], host_port(last)[1]
    if high > 65535:
        yield ("listen", "grpc"), grpc, f"ports up to 65535, not {high}, for {workers} workers"
    elif http is not None and low and low <= host_port(http)[1] <= high:
        yield ("listen", "http"), http, f"a port other than the workers' {low} to {high}"


def _envoy_conflicts(values: Mapping[Place, Any]) -> Iterator[tuple[Place, Any, str]]:
    taken: list[tuple[str, int, Place]] = []
    for place in _ENVOYS:
        # Port 0 is any free one; the metrics may have no address.
        host, port = host_port(values[place]) if values[place] else ("", 0)
        for other, used, owner in taken:
            if port and port == used and (host == other or {host, other} & ANY_HOST):
                yield place, values[place], f"a port other than the {port} of {dotted(owner)}"
                break
        taken.append((host, port, place))


def _tls_conflicts(values: Mapping[Place, Any]) -> Iterator[tuple[Place, Any, str]]:
    for place, needed in _TLS:
        missing = [".".join(map(str, each)) for each in needed if values.get(each, "") == ""]
        if values.get(place) and missing:
            yield place, values[place], f"none without {' and '.join(missing)}"
    for place, name in values.items():
        if place[-1:] == ("tls_name",) and name and values.get((*place[:-1], "tls_ca"), "") == "":
            yield place, name, "none without tls_ca"


def _body_conflicts(body: int | None, message: int | None) -> Iterator[tuple[Place, Any, str]]:
    # Envoy sends a buffered body as one message, which gRPC would refuse before it is read.
    if body is not None and message is not None and body + MESSAGE_OVERHEAD > message:
        allowed = f"at most listen.max_message_bytes less {MESSAGE_OVERHEAD}"
        yield _BODY, body, f"{allowed}: {message - MESSAGE_OVERHEAD}"


def _model_conflicts(values: Mapping[Place, Any]) -> Iterator[tuple[Place, Any, str]]:
    for index in range(len(values.get(("models",)) or ())):
        most, fixed = (("models", index, key) for key in ("max_pixels", "image_tokens"))
        if values.get(most) and values.get(fixed):
            yield most, values[most], "none beside image_tokens, which are those of every image"


def _state_conflicts(values: Mapping[Place, Any]) -> Iterator[tuple[Place, Any, str]]:
    # A random secret is another one after each start: what was learnt by digests would be lost.
    state = values.get(("state",))
    for place, scheme in ((_PASSWORD, "redis"), (_CA, "rediss:")):
        if values.get(place) and state is not None and not state.startswith(scheme):
            yield place, values[place], f"empty unless state begins with {scheme}"
    if state and not values.get(_KEY_FILE, ""):
        for place in (("tenants", "header"), ("budget", "prefixes")):
            if values.get(place):
                yield place, values[place], "none with state unless tenants.key_file is set"


def _row_conflicts(values: Mapping[Place, Any]) -> Iterator[tuple[Place, Any, str]]:
    """Yield what is wrong with the lists of pools, and between rows."""
    rows = range(len(values.get(("rows",)) or ()))
    if rows and ("pools",) in values:
        yield ("rows",), values["rows",], "none beside pools: give these to a row, or remove them"
    lists: list[Place] = [("pools",), *(("rows", index, "pools") for index in rows)]
    counts = {place: len(values[place]) for place in lists if values.get(place) is not None}
    owners: dict[str, Place] = {}
    for place, count in counts.items():
        if not 1 <= count <= MAX_POOLS:
            yield place, values[place], RowSettings.allowed("pools")
        yield from _name_conflicts(_column(values, place, "name"), owners)
        yield from _window_conflicts(values, place)
    yield from _row_model_conflicts(values, len(rows))


def _row_model_conflicts(
    values: Mapping[Place, Any], count: int
) -> Iterator[tuple[Place, Any, str]]:
    owners: dict[str, Place] = {}
    for row in range(count):
        # Those of earlier rows; one `*` alone is a fault itself there.
        patterns = [name for name in owners if ANY_MODEL in name and name != ANY_MODEL]
        for number in range(len(values.get(("rows", row, "models")) or ())):
            place: Place = ("rows", row, "models", number)
            name = values[place]
            if name is None:
                continue
            if name == ANY_MODEL and row < count - 1:
                yield place, name, "only in the last row, as it takes what no other row names"
            elif owners.setdefault(name, place) != place:
                yield place, name, f"a name of its own, this is that of {dotted(owners[name])}"
            elif first := next((each for each in patterns if _takes_all(each, name)), ""):
                owner = owners[first][:-2]
                allowed = f"only in a row before {dotted(owner)}, as {first!r} there takes it"
                yield place, name, allowed


def _takes_all(pattern: str, name: str) -> bool:
    """Return whether a pattern has all models of a name, which may be a pattern: `a*` has `ab*`."""
    # The `*` of the name counts as one more character, which no end of the pattern has.
    first, _, last = pattern.partition(ANY_MODEL)
    fits = len(name) >= len(first) + len(last)
    return fits and name.startswith(first) and name.endswith(last)


def _name_conflicts(
    names: Mapping[Place, Any], owners: dict[str, Place]
) -> Iterator[tuple[Place, Any, str]]:
    for place, name in _sound(names):
        if name in _RESERVED or name.endswith(_FALLBACK):
            taken = ", ".join([*sorted(_RESERVED), f"...{_FALLBACK}"])
            allowed = f"a name that Envoy's configuration has no other use for ({taken})"
            yield place, name, allowed
        if owners.setdefault(name, place) != place:
            allowed = f"a name of its own, this is that of {dotted(owners[name][:-1])}"
            yield place, name, allowed


def _window_conflicts(
    values: Mapping[Place, Any], pools: Place
) -> Iterator[tuple[Place, Any, str]]:
    windows = _column(values, pools, "max_model_len")
    thresholds = _column(values, pools, "threshold")
    for (before, low), (place, window) in itertools.pairwise(_sound(windows)):
        if window <= low:
            yield place, window, f"more than the {low} of {dotted(before[:-1])}"
    last = (*pools, len(values[pools]) - 1, "threshold")
    if last in thresholds:
        allowed = "none, as the last pool takes every larger budget"
        yield last, thresholds.pop(last), allowed
    for place, threshold in _sound(thresholds):
        window = windows.get((*place[:-1], "max_model_len"))
        if window is not None and threshold > window:
            yield place, threshold, f"at most its max_model_len, {window}"
    # A pool's limit is its threshold, or else its window.
    limits = {place[:-1]: value for place, value in (windows | thresholds).items()}
    for (before, low), (pool, limit) in itertools.pairwise(_sound(limits)):
        place = (*pool, "threshold")
        if place in thresholds and limit <= low:
            yield place, limit, f"more than the {low} of {dotted(before)}"


def _column(values: Mapping[Place, Any], pools: Place, key: str) -> dict[Place, Any]:
    """Return the values of a key of the pools in a list that state it, by place."""
    places = ((*pools, index, key) for index in range(len(values[pools])))
    return {place: values[place] for place in places if place in values}


def _sound(column: Mapping[Place, Any]) -> list[tuple[Place, Any]]:
    return [(place, value) for place, value in column.items() if value is not None]
