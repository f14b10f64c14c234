"""Files of certificates: which are taken, what is said of the others, and when they are read."""

import asyncio
import logging
import shutil
import ssl
from contextlib import asynccontextmanager

import pytest
from cryptography.hazmat.primitives import serialization

from extproc.service.certificates import (
    CertificateError,
    CertificateFiles,
    read_certificates,
)
from extproc.service.credentials import Certificates
from extproc.service.grpc_server import GrpcServer
from extproc.service.streams import Bounds
from tests.support.certificate_authority import Authority
from tests.support.conversation import stages


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def service(authority):
    return authority.issue("service")


def refused(cert, key, client_ca=None):
    with pytest.raises(CertificateError) as error:
        read_certificates(CertificateFiles(cert, key, client_ca))
    return str(error.value)


def test_a_file_that_is_not_there_is_named(service, tmp_path):
    text = f"{tmp_path}/none: cannot be read: No such file or directory"
    assert text in refused(tmp_path / "none", service.key)


def test_a_key_of_another_certificate_is_named(authority, service):
    other = authority.issue("other")
    text = f"{other.key}: not the key of {service.cert}; use the two files of one certificate"
    assert refused(service.cert, other.key) == text


@pytest.mark.parametrize("junk", [b"", b"junk", bytes(range(256))])
def test_what_holds_no_certificate_is_named(service, tmp_path, junk):
    (tmp_path / "junk").write_bytes(junk)
    text = f"{tmp_path}/junk: contains no PEM certificate"
    assert text in refused(tmp_path / "junk", service.key)
    assert text in refused(service.cert, service.key, tmp_path / "junk")


def test_what_holds_no_key_is_named(service):
    text = f"{service.cert}: contains no PEM key without a password"
    assert text in refused(service.cert, service.cert)


def test_a_key_with_a_password_is_refused_and_nobody_asked(service):
    key = serialization.load_pem_private_key(service.key.read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    service.key.write_bytes(locked)
    assert "without a password" in refused(service.cert, service.key)


@asynccontextmanager
async def serving(files):
    """Serve; yield a coroutine function that returns the certificate that is shown now."""
    server = GrpcServer(stages(), "127.0.0.1:0", Bounds(message_bytes=1 << 20), Certificates(files))
    port = await server.start()

    async def shown():
        return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port), timeout=20)

    try:
        yield shown
    finally:
        await server.drain(0)


def first_of(papers):
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(papers.cert.read_text()))


def test_a_renewed_certificate_is_shown_to_the_next_connection(authority, service):
    async def main():
        async with serving(CertificateFiles(service.cert, service.key)) as shown:
            assert await shown() == first_of(service)
            renewed = authority.issue("service")
            assert await shown() == first_of(renewed)

    asyncio.run(main())


def test_a_switched_link_is_a_renewal(authority, tmp_path):
    """As Kubernetes renews a mounted secret."""
    old, new, data = tmp_path / "old", tmp_path / "new", tmp_path / "..data"
    for folder in (old, new):
        folder.mkdir()
        authority.issue("tls", into=folder)
    data.symlink_to(old)

    async def main():
        async with serving(CertificateFiles(data / "tls.crt", data / "tls.key")) as shown:
            before = await shown()
            (tmp_path / "next").symlink_to(new)
            (tmp_path / "next").rename(data)
            assert await shown() != before

    asyncio.run(main())


def test_a_broken_renewal_keeps_the_old_and_is_logged_once(authority, service, tmp_path, caplog):
    async def main():
        async with serving(CertificateFiles(service.cert, service.key)) as shown:
            before = first_of(service)
            shutil.copy(authority.issue("other").key, service.key)
            assert [await shown() for _ in range(3)] == [before] * 3
            assert [record.message.count("not the key of") for record in caplog.records] == [1]
            service.cert.unlink()
            assert [await shown() for _ in range(2)] == [before] * 2
            assert "cannot be read" in caplog.records[-1].message
            renewed = authority.issue("service")
            assert await shown() == first_of(renewed)

    with caplog.at_level(logging.WARNING, "extproc.service.credentials"):
        asyncio.run(main())
    assert len(caplog.records) == 2
