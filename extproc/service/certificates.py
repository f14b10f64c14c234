"""TLS certificates from files that are renewed: reloaded when they change, if they are usable.

The files are checked at every handshake, so that no timer is needed and no open stream ends.
"""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from extproc.config.errors import UserError

_log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, ...], ...]


class CertificateError(UserError):
    """A certificate file that cannot be used: its path, the fault, and the fix."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: the service's certificate with its chain, its key, and the clients' CA.

    With client_ca, clients need a certificate that it signed; without, they need none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are configured."""
        named = (self.cert, self.key, self.client_ca)
        return tuple(path for path in named if path is not None)


class Certificates:
    """The newest usable certificates. Raises CertificateError if the first are unusable."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._stamp = _stamp(files)
        self._first = read_certificates(files)

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of a gRPC port; they follow the files."""
        required = self._files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._first, self._changed, required)

    def _changed(self) -> grpc.ServerCertificateConfiguration:
        # gRPC calls this before each handshake, one at a time, from a thread of its own.
        stamp = _stamp(self._files)
        unchanged: grpc.ServerCertificateConfiguration = None  # type: ignore[assignment]
        if stamp == self._stamp:
            return unchanged
        self._stamp = stamp
        try:
            configuration = read_certificates(self._files)
        except CertificateError as error:
            _log.error("keeping the previous certificates: %s", error)
            return unchanged
        _log.info("loaded new certificates: %s", ", ".join(map(str, self._files.paths)))
        return configuration


def read_certificates(files: CertificateFiles) -> grpc.ServerCertificateConfiguration:
    """Read and check the files. Raises CertificateError."""
    before = _stamp(files)
    cert, key = _read(files.cert), _read(files.key)
    client_ca = _read(files.client_ca) if files.client_ca else None
    _check(files)
    # _check reads the files again: make sure that it read the same ones.
    if _stamp(files) != before:
        raise CertificateError(f"{files.cert}: changed while it was read; start again")
    return grpc.ssl_server_certificate_configuration([(key, cert)], client_ca)


def _check(files: CertificateFiles) -> None:
    for path in (files.cert, files.client_ca):
        if path is not None:
            _check_certificates(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The empty password makes an encrypted key an error instead of a prompt at the terminal.
        context.load_cert_chain(files.cert, files.key, password="")
    except ssl.SSLError as error:
        raise CertificateError(_pair_fault(files, error)) from error


def _check_certificates(path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        fix = "use a file of -----BEGIN CERTIFICATE----- blocks"
        raise CertificateError(f"{path}: contains no PEM certificate; {fix}") from error


def _pair_fault(files: CertificateFiles, error: ssl.SSLError) -> str:
    match error.reason:
        case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH" | "NO_CERTIFICATE_ASSIGNED":
            return f"{files.key}: not the key of {files.cert}; use the two files of one certificate"
        case str(reason) if reason.endswith(("_TOO_SMALL", "_TOO_WEAK")):
            fault = reason.lower().replace("_", " ")
            return f"{files.cert}: {fault}; use RSA of 2048 bits or more, or ECDSA"
        case _:
            return f"{files.key}: contains no PEM key without a password; use one that does"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fix = "use a file that this user may read"
        raise CertificateError(f"{path}: cannot be read: {error.strerror}; {fix}") from error


def _stamp(files: CertificateFiles) -> _Stamp:
    return tuple(_file_stamp(path) for path in files.paths)


def _file_stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
