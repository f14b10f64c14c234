"""The command line: finds the command that is asked for, and turns a mistake into one message.

Exit codes: 0 done, 1 it ran and something was wrong, 2 it was asked the wrong way.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from extproc.config.errors import UserError

_EPILOG = """\
examples:
  dualpool demo                          the whole stack on this machine, traffic and a report
  dualpool check dualpool.yaml           print the effective settings, or what is wrong with them
  dualpool check dualpool.yaml --envoy envoy.yaml   say where Envoy's file disagrees
  dualpool config envoy dualpool.yaml    print Envoy's configuration for these settings
  dualpool serve --config dualpool.yaml  answer Envoy
  dualpool evaluate --texts my-texts     which estimator misroutes how much on your texts
  dualpool plan --from http://host:8081 --rate 200    how many GPUs, and where to split them
  echo '{"prompt": "hi"}' | dualpool explain - --path /v1/completions
"""

# A module of extproc.commands each. Only the one that is asked for is loaded: `plan` is there in
# half the time that all of them take.
_COMMANDS = {
    "serve": "answer Envoy (ext_proc over gRPC), and the operator (HTTP)",
    "check": "print the effective settings, or every fault in a file",
    "config": "print Envoy's configuration for the settings",
    "explain": "say where a request body would go, and why",
    "up": "run the whole stack on this machine until Ctrl-C (Linux)",
    "demo": "run the stack, send realistic traffic through it, and report (Linux)",
    "evaluate": "compare the estimators on your texts, tokenizers and thresholds",
    "plan": "say how many GPUs a traffic needs, and where to split it",
    "simulate": "send a traffic through a simulated fleet, with the service's own decisions",
    "profile": "measure a running vLLM and write its profile",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `dualpool`; return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    options = _parser(next(iter(words), "")).parse_args(words)
    try:
        return int(options.run(options))
    except UserError as mistake:
        return _fail(str(mistake), 2)
    except OSError as error:
        return _fail(f"dualpool: {error}", 1)
    except KeyboardInterrupt:
        return 130


def _parser(asked: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dualpool",
        description="Send each LLM request to the pool whose window fits its token budget.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name == asked:
            module = importlib.import_module(f"extproc.commands.{name}")
            command.description = module.DESCRIPTION
            command.set_defaults(run=module.run)
            module.fill(command)
    return parser


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
