"""The command line: builds everything once, here, and turns a user's mistake into one message.

Exit codes: 0 done, 1 it ran and something was wrong, 2 it was asked the wrong way.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec

from extproc.config import ConfigError, Settings, load, render
from extproc.evaluation.options import THRESHOLDS, EvaluateOptions
from extproc.evaluation.run import run_evaluate
from extproc.explain import describe, explain
from extproc.local.demo import DemoOptions, run_demo
from extproc.local.ports import Ports
from extproc.local.stack import StackOptions
from extproc.local.up import run_up
from extproc.request import endpoint
from extproc.serve import serve

_EPILOG = """\
examples:
  dualpool demo                          the whole stack on this machine, traffic and a report
  dualpool check dualpool.yaml           print the effective settings, or what is wrong with them
  dualpool serve --config dualpool.yaml  answer Envoy
  dualpool evaluate --texts my-texts     which estimator misroutes how much on your texts
  echo '{"prompt": "hi"}' | dualpool explain - --path /v1/completions
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `dualpool`; return its exit code."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except ConfigError as error:
        return _fail(str(error), 2)
    except OSError as error:
        return _fail(f"dualpool: {error}", 1)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dualpool",
        description="Send each LLM request to the pool whose window fits its token budget.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_check(commands)
    _add_explain(commands)
    _add_up(commands)
    _add_demo(commands)
    _add_evaluate(commands)
    return parser


_Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def _add_serve(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "serve",
        help="answer Envoy (ext_proc over gRPC), and the operator (HTTP)",
        description="Serve until SIGTERM or Ctrl-C; then refuse new streams and drain.",
    )
    _add_config(parser)
    parser.set_defaults(run=_serve)


def _add_check(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "check",
        help="print the effective settings, or every fault in a file",
        description="Exit code 0 with the effective settings, or 2 with one line for each fault.",
    )
    parser.add_argument(
        "file", type=Path, nargs="?", help="settings file (default: none, all defaults)"
    )
    parser.set_defaults(run=_check)


def _add_explain(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "explain",
        help="say where a request body would go, and why",
        description="Decide for one request body as a service that has learnt nothing yet.",
    )
    parser.add_argument("file", help="file with the request body, or - for standard input")
    parser.add_argument(
        "--path",
        default="/v1/chat/completions",
        help="path that the body is sent to (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_config(parser)
    parser.set_defaults(run=_explain)


def _add_up(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "up",
        help="run the whole stack on this machine until Ctrl-C (Linux)",
        description="Run the real Envoy, the service and two pools; Ctrl-C ends all of it.",
    )
    _add_stack(parser)
    parser.set_defaults(run=_up)


def _add_demo(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "demo",
        help="run the stack, send realistic traffic through it, and report (Linux)",
        description="Exit code 0 where no answer was lost or altered, else 1.",
    )
    _add_stack(parser)
    parser.add_argument("--requests", type=int, default=600, help="default: %(default)s")
    parser.add_argument(
        "--rate",
        type=float,
        metavar="PER_S",
        help="arrivals a second (default: 8 for the built-in pools; real ones: --concurrency)",
    )
    parser.add_argument(
        "--concurrency", type=int, default=16, help="requests at once, without --rate"
    )
    parser.add_argument(
        "--exceeding",
        type=float,
        default=0.12,
        metavar="SHARE",
        help="share of requests larger than the smallest pool (default: %(default)s)",
    )
    parser.add_argument(
        "--texts", type=Path, metavar="DIR", help="folder of UTF-8 texts, one kind each"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    parser.set_defaults(run=_demo)


def _add_evaluate(commands: "_Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "evaluate",
        help="compare the estimators on your texts, tokenizers and thresholds",
        description="Replay texts through each estimator, in order and online, and print how each "
        "does. A bench: the figures of one machine and one seed.",
    )
    parser.add_argument(
        "--texts", type=Path, metavar="DIR|FILE.jsonl", help="texts, a class each, or requests"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        action="append",
        metavar="FILE",
        help="a tokenizer.json (repeatable; default: o200k_base and cl100k_base)",
    )
    parser.add_argument(
        "--threshold",
        type=int,
        action="append",
        metavar="TOKENS",
        help=f"repeatable; default: {', '.join(map(str, THRESHOLDS))}",
    )
    parser.add_argument(
        "--lengths",
        type=Path,
        action="append",
        metavar="FILE",
        help="a trace that lengths are drawn from (repeatable; default: Azure 2023, longer tail)",
    )
    parser.add_argument(
        "--stated",
        type=float,
        default=0.85,
        metavar="SHARE",
        help="share of requests that state an output limit (default: %(default)s)",
    )
    parser.add_argument(
        "--requests", type=int, default=6000, help="for each tokenizer (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--by-class", action="store_true", help="a row for each class of text")
    parser.add_argument("--poison", action="store_true", help="what attacks do to the estimators")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot as PNG")
    parser.set_defaults(run=_evaluate)


def _add_stack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pools",
        default="",
        metavar="URL,URL",
        help="real servers, in place of the built-in simulated pools",
    )
    parser.add_argument(
        "--ports",
        choices=("fixed", "auto"),
        default="fixed",
        help="fixed: 10000, 9901, 50051, 8081, 8101, 8102; auto: any free ones",
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, help="of the built-in pools (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of traffic and pools (default: %(default)s)"
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file (default: none, all defaults)"
    )


def _serve(options: argparse.Namespace) -> int:
    serve(load(options.config))
    return 0


def _check(options: argparse.Namespace) -> int:
    print(render(load(options.file)), end="")
    return 0


def _explain(options: argparse.Namespace) -> int:
    settings: Settings = load(options.config)
    kind = endpoint(options.path)
    if kind is None:
        return _fail(f"dualpool: {options.path} carries no prompt: such requests pass on unread", 2)
    body = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    explanation = explain(body, kind, settings)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(asdict(explanation)), indent=2).decode())
    else:
        print(describe(explanation))
    return 0


def _up(options: argparse.Namespace) -> int:
    return run_up(_stack_options(options))


def _demo(options: argparse.Namespace) -> int:
    return run_demo(
        DemoOptions(
            stack=_stack_options(options),
            requests=options.requests,
            seed=options.seed,
            rate=options.rate,
            concurrency=options.concurrency,
            exceeding=options.exceeding,
            texts=options.texts,
            json=options.json,
        )
    )


def _evaluate(options: argparse.Namespace) -> int:
    return run_evaluate(
        EvaluateOptions(
            texts=options.texts,
            tokenizers=tuple(options.tokenizer or ()),
            thresholds=tuple(options.threshold or THRESHOLDS),
            lengths=tuple(options.lengths or ()),
            stated=options.stated,
            requests=options.requests,
            seed=options.seed,
            by_class=options.by_class,
            poison=options.poison,
            json=options.json,
            plot=options.plot,
        )
    )


def _stack_options(options: argparse.Namespace) -> StackOptions:
    return StackOptions(
        pools=tuple(url for url in options.pools.split(",") if url),
        ports=None if options.ports == "auto" else Ports(),
        speed=options.speed,
        seed=options.seed,
    )


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
