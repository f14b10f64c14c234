"""The bearer token of the HTTP side, from a file that may be renewed."""

import errno
import hmac
import logging
from pathlib import Path
from typing import Final

from extproc.config.errors import UserError

_NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
_WHAT: Final = "token for listen.http_token_file"
_log = logging.getLogger(__name__)


class TokenError(UserError):
    """A file of a token or secret that cannot be used: the fault and the fix.

    Its path is named if there is such a file.
    """


class BearerToken:
    """Recognises the token that a file holds; the file is read for each request."""

    def __init__(self, file: Path) -> None:
        """Check the file. Raises TokenError."""
        self._file = file
        read_secret(file, _WHAT)

    def permits(self, authorization: str) -> bool:
        """Return whether this value of the header `authorization` carries the token."""
        scheme, _, given = authorization.partition(" ")
        try:
            token = read_secret(self._file, _WHAT)
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
        if error.errno in _NO_FILE:  # an operator may have stated the secret in place of its path
            fix = "write it into a file that this user may read, and give that file's path"
            raise TokenError(f"the file of the {what} does not exist; {fix}") from None
        fix = "use a file that this user may read"
        raise TokenError(f"{file}: cannot be read: {error.strerror}; {fix}") from error
    if not secret:
        raise TokenError(f"{file}: holds no {what}; write one into it, such as 32 random letters")
    return secret
