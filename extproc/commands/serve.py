"""`dualpool serve`: the service."""

import argparse
from pathlib import Path

from extproc.build import tokenizer_faults
from extproc.commands.arguments import add_config
from extproc.config.conflicts import conflicts
from extproc.config.load import ConfigError, Settings, load, refused
from extproc.config.settings import Transport

DESCRIPTION = (
    "Serve until SIGTERM or Ctrl-C, then tell Envoy, refuse new streams and drain; "
    "a second one ends at once. Changes of the file, and SIGHUP, change the settings meanwhile."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    parser.add_argument(
        "--transport",
        choices=tuple(map(str, Transport)),
        help="what carries Envoy's streams; h2: less CPU, no TLS, for an Envoy on this machine; "
        "auto: h2 on a Unix socket and loopback without TLS, else grpc",
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="PEM: the service's certificate, for TLS"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM: its key")
    parser.add_argument(
        "--tls-client-ca",
        type=Path,
        metavar="FILE",
        help="PEM: the CA of Envoy's certificate; no other client may connect",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    # Imported when the command runs: its help must not wait for its libraries.
    from extproc.service.reload import Source
    from extproc.service.serve import serve

    source = Source(options.config, lambda: _load(options))
    serve(source.load(), source)
    return 0


def _load(options: argparse.Namespace) -> Settings:
    """Return the settings of file and flags. Raises ConfigError with the faults `check` prints."""
    settings = load(options.config)
    if faults := list(tokenizer_faults(settings)):
        raise refused(options.config, faults)
    return _with_flags(settings, options)


def _with_flags(settings: Settings, options: argparse.Namespace) -> Settings:
    """Replace the settings by what the flags say. Raises ConfigError."""
    flags = {key: getattr(options, key) for key in ("tls_cert", "tls_key", "tls_client_ca")}
    # Not resolved: certificates are renewed by switching a link.
    given: dict[str, object] = {key: str(path.absolute()) for key, path in flags.items() if path}
    if options.transport:
        given["transport"] = Transport(options.transport)
    # model_copy does not validate, so what flags and file contradict is checked here.
    listen = settings.listen.model_copy(update=given)
    for (_, key), value, allowed in conflicts(
        {("listen", key): getattr(listen, key) for key in ("transport", *flags)}
    ):
        raise ConfigError(f"dualpool: listen.{key}: {value!r} is not allowed: {allowed}")
    return settings.model_copy(update={"listen": listen})
