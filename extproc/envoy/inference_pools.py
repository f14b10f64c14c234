"""The objects for pools that are InferencePools, each with an endpoint picker, behind Istio.

A picker is an ext_proc service too, which names a server in `x-gateway-destination-endpoint`. It
must be asked after the pool is chosen. The filters are those of `dualpool config istio`.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from extproc.config.addresses import host_port
from extproc.config.keys import Fault
from extproc.config.settings import ANY_MODEL, PoolSettings, RowSettings, Settings
from extproc.envoy.fragment import dump
from extproc.envoy.istio import render_istio, undecided_route
from extproc.envoy.kubernetes import ObjectName, client_secret, gateway_faults
from extproc.envoy.render import refuse
from extproc.names import POOL_HEADER, ROW_HEADER

_INTRODUCTION = """\
# The pools {pools} as InferencePools, behind a Gateway of Istio: written by `dualpool config
# inference-pools`. Each pool has an endpoint picker: the Service NAME-epp, port {port}.
# A request:  strip -> router (asks the service) -> route by x-llm-pool -> picker -> a server.
"""
_PICKER_PORT = 9002
# Gateway API's limit of the rules of a route.
_MOST_RULES = 16
# What istiod calls its filter for pickers, which has the pool's picker by the route.
_PICKER_FILTER = "envoy.filters.http.ext_proc"
# A client could have any address called by it while no picker answers.
_DESTINATION = "(?i)x[-_]gateway[-_]destination[-_]endpoint.*"


def render_inference_pools(settings: Settings, gateway: str) -> str:
    """Return the objects as YAML, for a gateway NAMESPACE/NAME that they create.

    Raises RenderError with every fault, or UserError for the gateway.
    """
    refuse((*gateway_faults(settings), *_pool_faults(settings)))
    name, settings = ObjectName.of_gateway(gateway), settings.routed
    istio = list(yaml.safe_load_all(render_istio(settings, gateway)))
    objects = [
        *map(_inference_pool, settings.pools),
        _gateway(name, _place(settings.pools[0]).namespace),
        _route(settings, name),
        _filters(_of_kind(istio, "EnvoyFilter"), name),
        *(_reads_secrets(name) if client_secret(settings) else ()),
        _policy(_of_kind(istio, "NetworkPolicy"), name),
    ]
    names = ", ".join(pool.name for pool in settings.pools)
    head = _INTRODUCTION.format(pools=names, port=_PICKER_PORT)
    return head + "---\n".join(map(dump, objects))


def _pool_faults(settings: Settings) -> Iterator[Fault]:
    named = sum(ANY_MODEL not in row.models for row in settings.rows)
    if (count := len(settings.pools) + named) > _MOST_RULES:
        text = f"{count} rules for pools and rows; an HTTPRoute can have {_MOST_RULES}"
        yield ("rows",), text
    services = []
    for of, pool in settings.placed_pools():
        place = (*of, "address")
        host, _ = host_port(pool.address)
        if "." not in host:
            continue  # among gateway_faults
        if host.split(".")[2:3] != ["svc"]:
            yield place, f"{host} is no Service of Kubernetes: set NAME.NAMESPACE.svc.cluster.local"
            continue
        services.append(_place(pool))
        if services[-1].namespace != services[0].namespace:
            wanted = services[0].namespace
            yield place, f"in another namespace than the first pool; one HTTPRoute needs {wanted}"


def _place(pool: PoolSettings) -> ObjectName:
    """Return what the pool's InferencePool is called: as the Service of its address."""
    host, _ = host_port(pool.address)
    name, namespace, *_ = host.split(".")
    return ObjectName(namespace, name)


def _of_kind(objects: list[Any], kind: str) -> dict[str, Any]:
    [found] = [each for each in objects if each["kind"] == kind]
    return dict(found)


def _object(version: str, kind: str, name: ObjectName, **parts: Any) -> dict[str, Any]:
    metadata = {"name": name.name, "namespace": name.namespace}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **parts}


def _inference_pool(pool: PoolSettings) -> dict[str, Any]:
    place = _place(pool)
    spec = {
        "selector": {"matchLabels": {"app": place.name}},
        "targetPorts": [{"number": host_port(pool.address)[1]}],
        "endpointPickerRef": {"name": f"{place.name}-epp", "port": {"number": _PICKER_PORT}},
    }
    return _object("inference.networking.k8s.io/v1", "InferencePool", place, spec=spec)


def _gateway(name: ObjectName, routes_of: str) -> dict[str, Any]:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": routes_of}}
    listener = {
        "name": "http",
        "port": 80,
        "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "Selector", "selector": selector}},
    }
    spec = {"gatewayClassName": "istio", "listeners": [listener]}
    return _object("gateway.networking.k8s.io/v1", "Gateway", name, spec=spec)


def _route(settings: Settings, gateway: ObjectName) -> dict[str, Any]:
    """Return the route by x-llm-pool; what nobody has decided goes to a largest pool."""
    largest = settings.unnamed_row.pools[-1]
    smaller = [pool for pool in settings.pools if pool is not largest]
    decided = [[{"headers": [{"name": POOL_HEADER, "value": pool.name}]}] for pool in smaller]
    rules = [
        *map(_rule, smaller, decided),
        *(_undecided(row) for row in settings.rows if ANY_MODEL not in row.models),
    ]
    spec = {
        "parentRefs": [{"name": gateway.name, "namespace": gateway.namespace}],
        "rules": [*rules, _rule(largest, [{"path": {"type": "PathPrefix", "value": "/"}}])],
    }
    place = ObjectName(_place(largest).namespace, "dualpool")
    return _object("gateway.networking.k8s.io/v1", "HTTPRoute", place, spec=spec)


def _undecided(row: RowSettings) -> dict[str, Any]:
    """Return the rule for the models of a row, as Envoy has read them, without a decision."""
    header = {"name": ROW_HEADER, "value": row.pools[-1].name}
    rule = _rule(row.pools[-1], [{"headers": [header]}])
    return rule | {"name": f"{rule['name']}.undecided"}


def _rule(pool: PoolSettings, matches: list[Any]) -> dict[str, Any]:
    place, (_, port) = _place(pool), host_port(pool.address)
    backend = {
        "group": "inference.networking.k8s.io",
        "kind": "InferencePool",
        "name": place.name,
        "port": port,
    }
    return {
        # istiod finds a rule's picker by this name alone, among all routes of the gateway.
        "name": f"dualpool-{pool.name}",
        "matches": matches,
        "filters": [
            # The usage of a compressed answer could not be read as it passes.
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"remove": ["accept-encoding"]},
            }
        ],
        "backendRefs": [backend],
    }


def _filters(istio: dict[str, Any], gateway: ObjectName) -> dict[str, Any]:
    patches = istio["spec"]["configPatches"]
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name}
    spec = {"targetRefs": [target], "configPatches": [*_kept(patches), _host_patch(patches)]}
    place = ObjectName(gateway.namespace, "dualpool")
    return _object("networking.istio.io/v1alpha3", "EnvoyFilter", place, spec=spec)


def _kept(patches: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the patches that do not name the pools' clusters and routes, which are istiod's own."""
    for each in patches:
        value = each["patch"]["value"]
        match each["applyTo"]:
            case "CLUSTER" if value.get("name") == "dualpool":
                yield each
            case "NETWORK_FILTER":
                [strip] = value["typed_config"]["early_header_mutation_extensions"]
                strip["typed_config"]["mutations"].append(
                    {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": _DESTINATION}}}}
                )
                yield each
            case "HTTP_FILTER":
                # On for all routes: they are all to the pools, and istiod's names for them are its
                # own. Before the picker, since the route, and so the picker, follows the decision.
                value.pop("disabled", None)
                place = each["match"]["listener"]["filterChain"]["filter"]
                place["subFilter"] = {"name": _PICKER_FILTER}
                yield each


def _host_patch(patches: list[Any]) -> dict[str, Any]:
    """Return the patch with what a route of our own Envoy has: the limit of a body, the answer."""
    routes = [each["patch"]["value"] for each in patches if each["applyTo"] == "HTTP_ROUTE"]
    undecided = undecided_route(routes)
    keys = ("request_body_buffer_limit", "response_headers_to_add")
    return {
        "applyTo": "VIRTUAL_HOST",
        "match": {"context": "GATEWAY"},
        "patch": {"operation": "MERGE", "value": {key: undecided[key] for key in keys}},
    }


def _reads_secrets(gateway: ObjectName) -> Iterator[dict[str, Any]]:
    """Yield what lets istiod send the gateway its certificate: it may list its own Secrets."""
    version = "rbac.authorization.k8s.io/v1"
    place = ObjectName(gateway.namespace, "dualpool-client")
    rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}
    yield _object(version, "Role", place, rules=[rule])
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": place.name}
    # The account that istiod makes for a Gateway.
    account = {"kind": "ServiceAccount", "name": f"{gateway.name}-istio"}
    subject = account | {"namespace": gateway.namespace}
    yield _object(version, "RoleBinding", place, roleRef=role, subjects=[subject])


def _policy(istio: dict[str, Any], gateway: ObjectName) -> dict[str, Any]:
    [rule] = istio["spec"]["ingress"]
    [peer] = rule["from"]
    labels = {"gateway.networking.k8s.io/gateway-name": gateway.name}
    peer["podSelector"] = {"matchLabels": labels}
    return istio
