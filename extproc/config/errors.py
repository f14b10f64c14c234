"""The base class of errors that the user can fix, and what their texts hide."""

import re
from typing import ClassVar, Final

# The help's own `redis://[USER@]HOST:PORT` is no one's: no other @ follows there.
_USER: Final = re.compile(r"(?<=://)(?!\[USER@[^\s/?#@]*(?:[\s/?#]|$))[^\s/?#]*@")
_QUERY: Final = re.compile(r"(://[^\s?#]*\?)[^\s#'\"]*[^\s#'\":;,]")


class UserError(Exception):
    """An error that the user can fix; the text says what is wrong and what to change.

    The command line prints the text without a traceback and exits with `exit_code`.
    """

    exit_code: ClassVar[int] = 2


def hide_users(text: str) -> str:
    """Return a text without the users and passwords of the URLs in it.

    >>> hide_users("http://me:secret@pool:8000: no answer")
    'http://***@pool:8000: no answer'
    """
    return _USER.sub("***@", text)


def hide_secrets(text: str) -> str:
    """Return a text also without the queries of its URLs, which may hold a token.

    >>> hide_secrets("http://me:secret@pool:8000/?token=secret: no answer")
    'http://***@pool:8000/?***: no answer'
    """
    return _QUERY.sub(r"\1***", hide_users(text))
