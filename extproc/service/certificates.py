"""The files of TLS certificates: what they must contain, and what is wrong with those that do not.

Without gRPC, which a service on the other transport does not load.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from extproc.config.errors import UserError

Stamp = tuple[tuple[int, ...], ...]
"""Changes when one of the files does."""


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


@dataclass(frozen=True, slots=True)
class CertificateChain:
    """What the files contain, as PEM."""

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None


def read_certificates(files: CertificateFiles) -> CertificateChain:
    """Read and check the files. Raises CertificateError."""
    before = file_stamp(files)
    cert, key = read_pem(files.cert), read_pem(files.key)
    client_ca = read_pem(files.client_ca) if files.client_ca else None
    _check(files)
    # _check reads the files again: make sure that it read the same ones.
    if file_stamp(files) != before:
        raise CertificateError(f"{files.cert}: changed while it was read; start again")
    return CertificateChain(cert, key, client_ca)


def read_pem(path: Path) -> bytes:
    """Return what a file holds. Raises CertificateError."""
    try:
        return path.read_bytes()
    except OSError as error:
        fix = "use a file that this user may read"
        raise CertificateError(f"{path}: cannot be read: {error.strerror}; {fix}") from error


def check_authorities(path: Path) -> None:
    """Read the certificates of authorities. Raises CertificateError."""
    read_pem(path)
    _check_certificates(path)


def file_stamp(files: CertificateFiles) -> Stamp:
    """Return when and how the files were last changed."""
    return tuple(_one_stamp(path) for path in files.paths)


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


def _one_stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
