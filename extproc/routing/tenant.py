"""Which tenant a request is of, as a keyed digest: the name itself is neither kept nor sent on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

DIGEST_CHARS: Final = 16


@dataclass(frozen=True, slots=True)
class TenantKey:
    """The request header that names the tenant, and the secret of the digests."""

    header: str
    secret: bytes = field(repr=False)

    def digest(self, headers: Mapping[str, str]) -> str:
        """Return the digest of the tenant; requests without the header are of one tenant."""
        value = headers.get(self.header, "").strip()
        if self.header == "authorization":
            # A client may write the scheme as it likes, or none: one credential is one tenant.
            scheme, _, credential = value.partition(" ")
            value = credential.strip() or scheme
        data = value.encode("utf-8", "surrogateescape")
        return blake2b(data, digest_size=DIGEST_CHARS // 2, key=self.secret).hexdigest()
