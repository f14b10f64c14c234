"""The files that the settings name and the service reads: what would end it at the start."""

import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from extproc.build import tokenizer_faults
from extproc.config.errors import UserError
from extproc.config.keys import Fault, Place
from extproc.config.settings import ListenSettings, PoolSettings, Settings
from extproc.service.bearer import read_secret
from extproc.service.certificates import (
    CertificateError,
    CertificateFiles,
    check_authorities,
    read_certificates,
    read_pem,
)


def file_faults(settings: Settings) -> Iterator[Fault]:
    """Yield the files that the service could not use here and now, by their settings.

    Those that Envoy alone reads are not looked at, as it may run elsewhere.
    """
    yield from tokenizer_faults(settings)
    # By their texts: a certificate that is missing is read alone and with its key.
    found = dict[str, Place]()
    for place, read in _readers(settings):
        try:
            read()
        except UserError as error:
            found.setdefault(str(error), place)
    yield from ((place, text) for text, place in found.items())


def certificate_files(listen: ListenSettings) -> CertificateFiles | None:
    """Return the configured certificate files; None without TLS."""
    if not listen.tls_cert:
        return None
    client_ca = Path(listen.tls_client_ca) if listen.tls_client_ca else None
    return CertificateFiles(Path(listen.tls_cert), Path(listen.tls_key), client_ca)


def state_path(settings: Settings) -> Path | None:
    """Return the file that keeps what is learnt; None without one."""
    file = settings.state.removeprefix("file:")
    return Path(file) if file != settings.state else None


def pool_tls(pool: PoolSettings) -> ssl.SSLContext | None:
    """Return how the service trusts a pool's servers; None without TLS. Raises CertificateError."""
    if not pool.tls_ca:
        return None
    try:
        return ssl.create_default_context(cafile=pool.tls_ca)
    except OSError as error:
        fix = "put the file there for the service too, or set load.spill to false"
        text = f"{pool.tls_ca} (tls_ca of pool {pool.name}) cannot be read: {error}; {fix}"
        raise CertificateError(text) from error


def _readers(settings: Settings) -> Iterator[tuple[Place, Callable[[], object]]]:
    listen = settings.listen
    if file := listen.http_token_file:
        yield ("listen", "http_token_file"), partial(read_secret, Path(file), "token")
    if files := certificate_files(listen):
        for key in ("tls_cert", "tls_key", "tls_client_ca"):
            if file := getattr(listen, key):
                yield ("listen", key), partial(read_pem, Path(file))
        yield ("listen", "tls_cert"), partial(read_certificates, files)
    if file := settings.tenants.key_file:
        yield ("tenants", "key_file"), partial(read_secret, Path(file), "secret")
    if file := settings.state_password_file:
        yield ("state_password_file",), partial(read_secret, Path(file), "password")
    if file := settings.state_ca_file:
        yield ("state_ca_file",), partial(check_authorities, Path(file))
    if settings.load.spill:
        for place, pool in settings.placed_pools():
            yield (*place, "tls_ca"), partial(pool_tls, pool)
