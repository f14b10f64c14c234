"""Arguments that several commands share.

The arguments of a command load none of its libraries: its help must not wait for them. Defaults are
therefore written out, and tests compare them with those of the options that they fill.
"""

import argparse
import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from extproc.planner_commands.inputs import InputOptions
    from extproc.planner_commands.sweep import SweepOptions

DEFAULT_PROFILE: Final = "a100-llama70b"
PROFILES: Final = (DEFAULT_PROFILE, "h100-llama70b", "h100-llama8b", "a10g", "mi300x-qwen235b")
STATED: Final = 0.85


def output_file(text: str) -> Path:
    """Return the path of a file that a command writes at its end.

    A path in no folder is refused here, before the work begins.
    """
    file = Path(text)
    if not file.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {file.parent}")
    return file


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config, the path of the settings file."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file (default: none, all defaults)"
    )


def _factor(text: str) -> float:
    with suppress(ValueError):
        if 0 < (factor := float(text)) < math.inf:
            return factor
    raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a number above 0")


def add_stack(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a stack on this machine; up.stack_options reads them."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings file: its pools, and all else but its addresses (default: the pools short "
        "8192 and long 65536)",
    )
    parser.add_argument(
        "--listen",
        default="",
        metavar="HOST:PORT",
        help="where Envoy serves the API (default: the first of --ports, on 127.0.0.1)",
    )
    parser.add_argument(
        "--pools",
        default="",
        metavar="URL,URL",
        help="use these running servers instead of the built-in simulated pools",
    )
    parser.add_argument(
        "--ports",
        default="fixed",
        metavar="PORTS",
        help="fixed: 10000,9901,50051,8081,8101,8102...; auto: any free ports; or ports of your "
        "choice: Envoy, its admin, the service's gRPC and HTTP, each simulated pool "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--logs",
        type=Path,
        metavar="DIR",
        help="keep the logs of all parts there, overwriting earlier ones; dualpool plan reads "
        "envoy-access.log (default: they end with the stack)",
    )
    parser.add_argument(
        "--speed",
        type=_factor,
        default=1.0,
        metavar="FACTOR",
        help="run the simulated pools this many times faster than real ones (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed of the traffic and of the simulated pools (default: %(default)s)",
    )


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Add --jobs and --cluster; sweep_options reads them."""
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="run simulations in this many processes (default: one for each CPU)",
    )
    parser.add_argument(
        "--cluster",
        default="",
        metavar="ADDRESS",
        help="run simulations on the workers of this Dask scheduler, for example tcp://host:8786",
    )


def sweep_options(arguments: argparse.Namespace) -> "SweepOptions":
    """Return where simulations run."""
    from extproc.planner_commands.sweep import SweepOptions

    return SweepOptions(arguments.jobs, arguments.cluster)


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a workload; input_options reads them."""
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="lengths: a CDF (CSV or JSON), an Azure LLM, Mooncake or BurstGPT trace, a result of "
        "vllm bench serve, an access log, the answer of GET /lengths, or a CSV of prompt_tokens, "
        "completion_tokens and, for requests of several sequences, prompts and n; also gzipped",
    )
    parser.add_argument(
        "--from",
        dest="services",
        action="append",
        default=[],
        metavar="URL",
        help="a live service, such as http://127.0.0.1:8081; repeat for each replica",
    )
    parser.add_argument(
        "--weight",
        dest="weights",
        action="append",
        default=[],
        type=float,
        metavar="W",
        help="the weight of an input; repeat for each, --from last (default: its number of "
        "requests, or 1 each if one is a distribution)",
    )
    parser.add_argument(
        "--output-share",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="output tokens as a share of the total, for files that only have totals "
        "(default: %(default)s)",
    )


def input_options(arguments: argparse.Namespace) -> "InputOptions":
    """Return the parsed arguments of add_inputs."""
    from extproc.planner_commands.inputs import InputOptions

    return InputOptions(
        files=tuple(arguments.files),
        services=tuple(arguments.services),
        weights=tuple(arguments.weights),
        output_share=arguments.output_share,
    )
