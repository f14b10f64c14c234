"""The digest of a tenant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.routing.tenant import DIGEST_CHARS, TenantKey

KEY = TenantKey("x-tenant", b"s" * 32)
CREDENTIAL = TenantKey("authorization", b"s" * 32)


@given(st.text())
def test_a_digest_is_short_and_never_empty(value):
    digest = KEY.digest({"x-tenant": value})
    assert len(digest) == DIGEST_CHARS
    assert digest.isalnum()


def test_a_tenant_has_one_digest_and_another_tenant_another():
    digests = [KEY.digest({"x-tenant": value}) for value in ("acme", " acme ", "other")]
    assert digests[0] == digests[1] != digests[2]


def test_requests_without_the_header_are_of_one_tenant():
    assert KEY.digest({}) == KEY.digest({"x-tenant": ""})


def test_another_secret_gives_another_digest():
    headers = {"x-tenant": "acme"}
    assert TenantKey("x-tenant", b"t" * 32).digest(headers) != KEY.digest(headers)


@pytest.mark.parametrize("value", ["Bearer k", "bearer k", "BEARER  k "])
def test_one_credential_is_one_tenant_however_its_scheme_is_written(value):
    expected = CREDENTIAL.digest({"authorization": "Bearer k"})
    assert CREDENTIAL.digest({"authorization": value}) == expected


def test_credentials_without_a_scheme_are_tenants_of_their_own():
    values = ["", "sk-abc", "sk-def", "Bearer sk-ghi"]
    assert len({CREDENTIAL.digest({"authorization": value}) for value in values}) == 4


def test_the_secret_is_not_shown():
    assert "ssss" not in repr(KEY)
