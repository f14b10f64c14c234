"""The bearer token of the HTTP side, from a file that may be renewed."""

import hmac
import logging
from pathlib import Path

from extproc.config.errors import UserError

_log = logging.getLogger(__name__)


class TokenError(UserError):
    """A file of a token or secret that cannot be used: its path, the fault, and the fix."""


class BearerToken:
    """Recognises the token that a file holds; the file is read for each request."""

    def __init__(self, file: Path) -> None:
        """Check the file. Raises TokenError."""
        self._file = file
        read_secret(file, "token")

    def permits(self, authorization: str) -> bool:
        """Return whether this value of the header `authorization` carries the token."""
        scheme, _, given = authorization.partition(" ")
        try:
            token = read_secret(self._file, "token")
        except TokenError as error:
            _log.error("refusing a request for lack of a token: %s", error)
            return False
        # In constant time, so that the answer's delay tells nothing of the token.
        matches = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token)
        return matches and scheme.lower() == "bearer"


def read_secret(file: Path, what: str) -> bytes:
    """Return what a file holds, without white space around it. Raises TokenError, of `what`."""
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        fix = "use a file that this user may read"
        raise TokenError(f"{file}: cannot be read: {error.strerror}; {fix}") from error
    if not secret:
        raise TokenError(f"{file}: holds no {what}; write one into it, such as 32 random letters")
    return secret
