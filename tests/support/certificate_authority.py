"""A certificate authority for tests; writes certificates and keys as PEM files."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme


@dataclass(frozen=True)
class IssuedCertificate:
    """Paths of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(
        self, name: str, into: Path | None = None, until: datetime | None = None
    ) -> IssuedCertificate:
        """Issue a certificate for 127.0.0.1 and localhost, written as NAME.crt and NAME.key."""
        names = ("127.0.0.1", "localhost")
        leaf = self._ca.issue_cert(*names, common_name=name, not_after=until)
        folder = into or self._folder
        files = IssuedCertificate(folder / f"{name}.crt", folder / f"{name}.key")
        files.cert.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(files.key)
        return files
