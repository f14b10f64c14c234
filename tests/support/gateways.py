"""Envoy as Istio and Envoy Gateway run it: our objects, translated without a control plane."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import yaml

from extproc.config.load import load
from extproc.config.settings import Settings
from extproc.envoy.envoy_gateway import render_envoy_gateway
from extproc.envoy.istio import render_istio
from extproc.local.children import Command
from tests.support import envoy_gateway, istiod
from tests.support.envoys import VERSIONS, binary
from tests.support.manifests import FOLDERS, addressed, envoy, with_secrets

SETTINGS = FOLDERS / "kubernetes" / "settings.yaml"
HOSTS = (
    "dualpool.dualpool.svc.cluster.local:50051",
    "vllm-short.llm.svc.cluster.local:8000",
    "vllm-long.llm.svc.cluster.local:8000",
)
NO_TLS = dict.fromkeys(("tls_cert", "tls_key", "tls_client_ca"), "")


@dataclass(frozen=True)
class GatewayForm:
    """A folder of envoy/, its command and default gateway, and the control plane's translation."""

    folder: str
    command_name: str
    gateway: str
    render: Callable[[Settings, str], str]
    bootstrap: Callable
    clusters: Mapping[str, str]
    patience_s: float = 30.0
    version: str = VERSIONS[-1]
    envoy: tuple[tuple[str, object], ...] = ()

    def objects(self, *, mutual_tls):
        """Return the objects for the folder's settings, changed as `envoy` says."""
        settings = load(SETTINGS)
        update = {"envoy": settings.envoy.model_copy(update=dict(self.envoy))}
        if not mutual_tls:
            update["listen"] = settings.listen.model_copy(update=NO_TLS)
        settings = settings.model_copy(update=update)
        return list(yaml.safe_load_all(self.render(settings, self.gateway)))

    def config(self, listener, admin, ports, certificates=None):
        """Return Envoy's configuration, with the service and both pools at these ports.

        The service is reached with the certificates of that folder, without one in plain HTTP/2.
        """
        found = self.bootstrap(self.objects(mutual_tls=bool(certificates)), listener, admin)
        if certificates:
            found = with_secrets(found, certificates / "envoy")
        return addressed(found, dict(zip(HOSTS, ports, strict=True)))

    def command(self, _settings, ports):
        """Return the command of an Envoy before a puppet mesh's pools."""
        config = self.config(ports.listener, ports.admin, (ports.grpc, *ports.pools))
        return Command("envoy", tuple(envoy(config=config, binary=binary(self.version))))


ISTIO = GatewayForm(
    "istio",
    "istio",
    "istio-ingress/istio-ingress",
    render_istio,
    istiod.bootstrap,
    {
        "dualpool": "dualpool",
        "short": "outbound|8000||vllm-short.llm.svc.cluster.local",
        "long": "outbound|8000||vllm-long.llm.svc.cluster.local",
    },
)
ENVOY_GATEWAY = GatewayForm(
    "gateway",
    "envoy-gateway",
    "llm-gateway/llm-gateway",
    render_envoy_gateway,
    envoy_gateway.bootstrap,
    {
        "dualpool": "service/0",
        "short": envoy_gateway.cluster_name("short"),
        "long": envoy_gateway.cluster_name("long"),
    },
    # Until a minute after its first request, a cluster is checked once a minute.
    patience_s=75.0,
)
BOTH = {each.folder: each for each in (ISTIO, ENVOY_GATEWAY)}
