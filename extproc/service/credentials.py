"""TLS credentials for gRPC from files that are renewed: reloaded when they change, if usable.

The files are checked at every handshake, so that no timer is needed and no open stream ends.
"""

import logging

import grpc

from extproc.service.certificates import (
    CertificateChain,
    CertificateError,
    CertificateFiles,
    file_stamp,
    read_certificates,
)

_log = logging.getLogger(__name__)


class Certificates:
    """The newest usable certificates. Raises CertificateError if the first are unusable."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._stamp = file_stamp(files)
        self._first = _configuration(read_certificates(files))

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of a gRPC port; they follow the files."""
        required = self._files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._first, self._changed, required)

    def _changed(self) -> grpc.ServerCertificateConfiguration:
        # gRPC calls this before each handshake, one at a time, from a thread of its own.
        stamp = file_stamp(self._files)
        unchanged: grpc.ServerCertificateConfiguration = None  # type: ignore[assignment]
        if stamp == self._stamp:
            return unchanged
        self._stamp = stamp
        try:
            configuration = _configuration(read_certificates(self._files))
        except CertificateError as error:
            _log.error("keeping the previous certificates: %s", error)
            return unchanged
        _log.info("loaded new certificates: %s", ", ".join(map(str, self._files.paths)))
        return configuration


def _configuration(chain: CertificateChain) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(chain.key, chain.cert)], chain.client_ca)
