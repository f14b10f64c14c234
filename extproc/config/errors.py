"""The base class of errors that the user can fix."""

from typing import ClassVar


class UserError(Exception):
    """An error that the user can fix; the text says what is wrong and what to change.

    The command line prints the text without a traceback and exits with `exit_code`.
    """

    exit_code: ClassVar[int] = 2
