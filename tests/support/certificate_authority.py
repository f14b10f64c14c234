"""Certificates made for a test: an authority and what it issues, as PEM files."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Papers:
    """A certificate and its key, by path."""

    cert: Path
    key: Path


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, name: str, into: Path | None = None) -> Papers:
        """Issue a certificate for 127.0.0.1 and localhost, written as NAME.crt and NAME.key."""
        issued = self._ca.issue_cert("127.0.0.1", "localhost", common_name=name)
        folder = into or self._folder
        papers = Papers(folder / f"{name}.crt", folder / f"{name}.key")
        papers.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(papers.key)
        return papers
