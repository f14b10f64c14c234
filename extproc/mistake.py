"""What a user asked the wrong way."""


class Mistake(Exception):  # noqa: N818 - the user's, not an error of ours
    """The text says what is wrong and what to do about it; a command that meets it exits with 2."""
