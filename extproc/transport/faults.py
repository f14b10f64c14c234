"""The rules of HTTP/2 whose breach ends a connection."""


class ConnectionFault(Exception):  # noqa: N818 - the peer's, so no error of ours
    """A rule that the peer broke; `code` is for GOAWAY."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
