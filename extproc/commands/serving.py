"""What `dualpool serve` serves by: the settings, and the flags before them."""

import argparse
from pathlib import Path

from extproc.build import tokenizer_faults
from extproc.config.conflicts import conflicts
from extproc.config.load import ConfigError, Settings, load, refused
from extproc.config.settings import Transport


def load_with_flags(options: argparse.Namespace) -> Settings:
    """Return the settings of file and flags. Raises ConfigError with the faults `check` prints."""
    return _with_flags(load_usable(options.config), options)


def load_usable(file: Path | None) -> Settings:
    """Return the settings of a file whose tokenizers can be used. Raises ConfigError."""
    settings = load(file)
    if faults := list(tokenizer_faults(settings)):
        raise refused(file, faults)
    return settings


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
