"""What `dualpool config` does: write configurations for other programs."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from extproc.config.errors import UserError
from extproc.config.load import load, refused, states
from extproc.config.settings import Settings
from extproc.envoy.envoy_gateway import render_envoy_gateway
from extproc.envoy.fragment import render_fragment
from extproc.envoy.inference_pools import render_inference_pools
from extproc.envoy.istio import render_istio
from extproc.envoy.render import RenderError, render_envoy

_PREFIX: Final = "/llm/"


def print_rendered(options: argparse.Namespace) -> None:
    """Print the configuration. Raises ConfigError."""
    settings = load(options.file)
    try:
        print(_render(settings, options), end="")
    except RenderError as error:
        raise refused(options.file, error.faults) from error
    if options.kind == "envoy":
        for note in _assumed(options.file, settings):
            print(f"note: {note}", file=sys.stderr)


def _assumed(file: Path | None, settings: Settings) -> Iterator[str]:
    """Yield the addresses of pools that the file does not state."""
    for place, pool in settings.placed_pools():
        # A shadow routes nothing to its smaller pools.
        is_routed = not settings.shadow or pool is settings.pools[-1]
        if is_routed and not states(file, (*place, "address")):
            yield f"the settings state no address of pool {pool.name}: {pool.address} is assumed"


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
