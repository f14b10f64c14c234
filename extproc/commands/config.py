"""`dualpool config`: print configurations for other programs."""

import argparse
from pathlib import Path

from extproc.config.load import load, refused
from extproc.config.settings import Settings
from extproc.envoy.envoy_gateway import render_envoy_gateway
from extproc.envoy.fragment import render_fragment
from extproc.envoy.inference_pools import render_inference_pools
from extproc.envoy.istio import render_istio
from extproc.envoy.render import RenderError, render_envoy

DESCRIPTION = "Print a configuration that matches the settings."


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    kinds = parser.add_subparsers(metavar="KIND", dest="kind", required=True)
    envoy = kinds.add_parser("envoy", help="Envoy's bootstrap, as YAML")
    envoy.add_argument(
        "--fragment",
        action="store_true",
        help="print only the parts to paste into an Envoy that serves other applications too",
    )
    envoy.add_argument(
        "--prefix",
        default="/llm/",
        metavar="PATH",
        help="path of the API, with --fragment; starts and ends with / (default: %(default)s)",
    )
    istio = kinds.add_parser("istio", help="objects for an Istio ingress gateway")
    istio.add_argument(
        "--gateway",
        default="istio-ingress/istio-ingress",
        metavar="NAMESPACE/APP",
        help="the gateway's namespace and its pods' label `app` (default: %(default)s)",
    )
    envoy_gateway = kinds.add_parser("envoy-gateway", help="objects for Envoy Gateway")
    envoy_gateway.add_argument(
        "--gateway",
        default="llm-gateway/llm-gateway",
        metavar="NAMESPACE/NAME",
        help="the Gateway (default: %(default)s)",
    )
    pickers = kinds.add_parser(
        "inference-pools", help="objects for InferencePools with endpoint pickers, behind Istio"
    )
    pickers.add_argument(
        "--gateway",
        default="llm-gateway/llm-gateway",
        metavar="NAMESPACE/NAME",
        help="the Gateway that they create (default: %(default)s)",
    )
    for kind in (envoy, istio, envoy_gateway, pickers):
        kind.add_argument(
            "file", type=Path, nargs="?", help="settings file (default: none, all defaults)"
        )


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    settings = load(options.file)
    try:
        print(_render(settings, options), end="")
    except RenderError as error:
        raise refused(options.file, error.faults) from error
    return 0


def _render(settings: Settings, options: argparse.Namespace) -> str:
    match options.kind:
        case "istio":
            return render_istio(settings, options.gateway)
        case "envoy-gateway":
            return render_envoy_gateway(settings, options.gateway)
        case "inference-pools":
            return render_inference_pools(settings, options.gateway)
        case _ if options.fragment:
            return render_fragment(settings, options.prefix)
        case _:
            return render_envoy(settings)
