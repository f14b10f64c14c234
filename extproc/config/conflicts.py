"""Values of the settings that are valid each by itself and contradict each other."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from extproc.config.addresses import MAX_SOCKET_PATH_BYTES, host_port, worker_addresses
from extproc.config.keys import Place
from extproc.config.settings import (
    MAX_POOLS,
    MESSAGE_OVERHEAD,
    ListenSettings,
    RequestSettings,
    Settings,
    Transport,
)

_LISTEN: tuple[Place, ...] = (("listen", "grpc"), ("listen", "http"), ("workers",))
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
_MESSAGE: Place = ("listen", "max_message_bytes")
_BODY: Place = ("requests", "max_body_bytes")
_DEFAULTS: Mapping[Place, Any] = {
    ("listen", "grpc"): ListenSettings().grpc,
    ("listen", "http"): ListenSettings().http,
    ("workers",): Settings().workers,
    _MESSAGE: ListenSettings().max_message_bytes,
    _BODY: RequestSettings().max_body_bytes,
    ("pools",): Settings().pools,
}


def conflicts(values: Mapping[Place, Any]) -> Iterator[tuple[Place, Any, str]]:
    """Yield the values that contradict each other: the place, the value, and what is allowed.

    `values` are those of a file by place. A value that is invalid by itself is None, and a place
    with its default is absent, so that no fault hides another.
    """
    values = {**_DEFAULTS, **values}
    yield from _listen_conflicts(values)
    yield from _tls_conflicts(values)
    if values.get(_TRANSPORT) == Transport.H2 and values.get(("listen", "tls_cert")):
        yield _TRANSPORT, Transport.H2.value, "auto or grpc with listen.tls_cert"
    yield from _body_conflicts(values[_BODY], values[_MESSAGE])
    if (pools := values["pools",]) is not None:
        yield from _pool_conflicts(values, len(pools))
    yield from _model_conflicts(values)


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


def _tls_conflicts(values: Mapping[Place, Any]) -> Iterator[tuple[Place, Any, str]]:
    for place, needed in _TLS:
        missing = [".".join(map(str, each)) for each in needed if values.get(each, "") == ""]
        if values.get(place) and missing:
            yield place, values[place], f"none without {' and '.join(missing)}"


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


def _pool_conflicts(values: Mapping[Place, Any], count: int) -> Iterator[tuple[Place, Any, str]]:
    if not 1 <= count <= MAX_POOLS:
        yield ("pools",), values["pools",], Settings.allowed("pools")
    owners: dict[str, int] = {}
    for index, name in _sound(_column(values, "name")):
        if name in _RESERVED or name.endswith(_FALLBACK):
            taken = ", ".join([*sorted(_RESERVED), f"...{_FALLBACK}"])
            allowed = f"a name that Envoy's configuration has no other use for ({taken})"
            yield ("pools", index, "name"), name, allowed
        if owners.setdefault(name, index) != index:
            allowed = f"a name of its own, this is that of pools[{owners[name]}]"
            yield ("pools", index, "name"), name, allowed
    windows = _column(values, "max_model_len")
    for (before, low), (index, window) in itertools.pairwise(_sound(windows)):
        if window <= low:
            yield (
                ("pools", index, "max_model_len"),
                window,
                f"more than the {low} of pools[{before}]",
            )
    yield from _threshold_conflicts(windows, _column(values, "threshold"), count - 1)


def _threshold_conflicts(
    windows: dict[int, Any], thresholds: dict[int, Any], last: int
) -> Iterator[tuple[Place, Any, str]]:
    if last in thresholds:
        allowed = "none, as the last pool takes every larger budget"
        yield ("pools", last, "threshold"), thresholds.pop(last), allowed
    for index, threshold in _sound(thresholds):
        window = windows.get(index)
        if window is not None and threshold > window:
            yield ("pools", index, "threshold"), threshold, f"at most its max_model_len, {window}"
    limits = _sound({**windows, **thresholds})
    for (before, low), (index, limit) in itertools.pairwise(limits):
        if index in thresholds and limit <= low:
            yield ("pools", index, "threshold"), limit, f"more than the {low} of pools[{before}]"


def _column(values: Mapping[Place, Any], key: str) -> dict[int, Any]:
    count = len(values["pools",])
    places = ((index, ("pools", index, key)) for index in range(count))
    return {index: values[place] for index, place in places if place in values}


def _sound(column: Mapping[int, Any]) -> list[tuple[int, Any]]:
    return sorted((index, value) for index, value in column.items() if value is not None)
