"""`dualpool config`: print configurations for other programs."""

import argparse
from pathlib import Path

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
        metavar="PATH",
        help="path of the API before its /v1/, which pools do not see; with --fragment; starts and "
        "ends with / (default: /llm/)",
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
    from extproc.commands.rendering import print_rendered

    print_rendered(options)
    return 0
