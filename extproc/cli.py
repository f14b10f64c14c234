"""The command line: runs one command and reports an error as one message.

Invariant: every UserError and OSError of a command is printed here and nowhere else.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from extproc import __version__
from extproc.config.errors import UserError, hide_secrets
from extproc.names import install_hint

_EPILOG = """\
examples:
  dualpool demo                          run the whole stack here, send traffic, print a report
  dualpool check dualpool.yaml           print the effective settings, or every error in the file
  dualpool check dualpool.yaml --envoy envoy.yaml   compare Envoy's file with the settings
  dualpool config envoy dualpool.yaml    print Envoy's configuration for these settings
  dualpool serve --config dualpool.yaml  run the service
  dualpool evaluate --texts my-texts     compare the estimators on your own texts
  dualpool plan --from http://host:8081 --rate 200    size a fleet and choose its thresholds
  echo '{"prompt": "hi"}' | dualpool explain -

exit codes:
  0    success
  1    the command ran, and found a problem or failed
  2    wrong arguments, settings or input files; the message says what to change
  130  interrupted by Ctrl-C
  141  whoever read the output has closed it, such as head

Colours are only for terminals; the environment variable NO_COLOR switches them off.
"""

# One module of extproc.commands each. Only the command given is imported: the imports of all of
# them take a second. Those of serve, up, demo and profile wait until it runs.
_COMMANDS = {
    "serve": "run the service: ext_proc over gRPC for Envoy, HTTP for operators",
    "check": "print the effective settings, or every error in a settings file",
    "config": "print Envoy's configuration for the settings",
    "doctor": "look at a running Envoy, service and pools, and say what is wrong",
    "explain": "show the pool chosen for a request body, and why",
    "up": "run the whole stack on this machine until Ctrl-C (Linux)",
    "demo": "run the stack, send realistic traffic through it, and report (Linux)",
    "completion": "print the completion script of a shell",
    "evaluate": "compare the estimators on your texts, tokenizers and thresholds",
    "plan": "compute how many GPUs the traffic needs, and where to split it",
    "simulate": "simulate a fleet request by request, with the service's own routing",
    "profile": "measure a running vLLM and write its profile",
}
_OF_THE_STACK = frozenset({"up", "demo"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `dualpool`; return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    _mend_streams()
    try:
        chosen = next(iter(words), "")
        with _flushing(), _naming_packages(chosen):
            options, unknown = _parser(chosen).parse_known_args(words)
            if unknown:
                _refuse(options, unknown)
            return int(options.run(options))
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # What is still buffered must not raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(f"dualpool: {_describe(error)}", 1)
    except KeyboardInterrupt:
        return 130


def _mend_streams() -> None:
    """Let any text be printed, to a stream that the caller has closed too: it has no object."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that a terminal cannot show


def _refuse(options: argparse.Namespace, unknown: Sequence[str]) -> NoReturn:
    """Exit with the usage of the command, and a hint where a settings file is given amiss."""
    first, takes_flag = unknown[0], hasattr(options, "config")
    hint = ""
    if takes_flag and not first.startswith("-"):
        hint = f"; did you mean --config {first}?"
    elif first.partition("=")[0] == "--config" and not takes_flag and hasattr(options, "file"):
        hint = "; this command takes the settings file without a flag"
    parser: argparse.ArgumentParser = options.parser
    parser.error(f"unrecognized arguments: {hide_secrets(' '.join(unknown))}{hint}")


def whole_parser() -> argparse.ArgumentParser:
    """Return the parser with the arguments of all commands."""
    return _parser(*_COMMANDS)


def _parser(*chosen: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dualpool",
        description="Send each LLM request to the pool whose window fits its token budget.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.set_defaults(parser=command)
        if name in chosen:
            module = importlib.import_module(f"extproc.commands.{name}")
            command.description = module.DESCRIPTION
            command.set_defaults(run=module.run, whole_parser=whole_parser)
            module.fill(command)
    return parser


@contextmanager
def _flushing() -> Iterator[None]:
    """Write all output while errors are still reported here; also that of --help, which exits."""
    try:
        yield
    finally:
        sys.stdout.flush()


@contextmanager
def _naming_packages(command: str) -> Iterator[None]:
    """Raise UserError, with what to install, for a package that the command does not find."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "extproc").partition(".")[0]
        if package == "extproc":
            raise
        fix = install_hint("local" if command in _OF_THE_STACK else "commands")
        raise UserError(f"dualpool {command} needs the package {package}: {fix}") from None


def _describe(error: OSError) -> str:
    """Return the error without its number: `/file: No such file or directory`."""
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _fail(message: str, code: int) -> int:
    print(hide_secrets(message), file=sys.stderr)
    return code
