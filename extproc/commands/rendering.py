"""What `dualpool config` does: write configurations for other programs."""

import argparse
from typing import Final

from extproc.config.errors import UserError
from extproc.config.load import load, refused
from extproc.config.settings import Settings
from extproc.envoy.envoy_gateway import render_envoy_gateway
from extproc.envoy.fragment import render_fragment
from extproc.envoy.inference_pools import render_inference_pools
from extproc.envoy.istio import render_istio
from extproc.envoy.render import RenderError, render_envoy

_PREFIX: Final = "/llm/"


def render(options: argparse.Namespace) -> str:
    """Return the configuration. Raises ConfigError."""
    settings = load(options.file)
    try:
        return _render(settings, options)
    except RenderError as error:
        raise refused(options.file, error.faults) from error


def _render(settings: Settings, options: argparse.Namespace) -> str:
    match options.kind:
        case "istio":
            return render_istio(settings, options.gateway)
        case "envoy-gateway":
            return render_envoy_gateway(settings, options.gateway)
        case "inference-pools":
            return render_inference_pools(settings, options.gateway)
        case _ if options.fragment:
            return render_fragment(settings, _PREFIX if options.prefix is None else options.prefix)
        case _ if options.prefix is not None:
            raise UserError("--prefix: it needs --fragment, which prints routes below a path")
        case _:
            return render_envoy(settings)
