"""Errors that a user caused and can mend."""


class UserError(Exception):
    """A mistake of the user's; the text says what is wrong and how to mend it.

    The command line prints it without a stack trace and exits with 2.
    """
