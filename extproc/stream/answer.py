"""An answer that is still arriving: what it used, and what it shows of its server."""

from typing import Final

from extproc.response.reader import Refused, Unlearnable, Usage, UsageReader
from extproc.stream.session import Head
from extproc.stream.usage_asking import UsageSeen

_WRONG_REQUEST: Final = (400, 422)
_MOST_ERROR_BYTES: Final = 4096
_STATUS_DIGITS: Final = 3


class PendingAnswer:
    """Feed it the body; what Envoy itself read of the usage goes to `reader`."""

    __slots__ = ("_error", "_is_fed", "_status", "attempts", "reader")

    def __init__(self, head: Head) -> None:
        stated = head.headers.get(":status", "")
        self._status = int(stated) if len(stated) == _STATUS_DIGITS and stated.isdecimal() else 0
        self._is_fed = False
        self._error = b""  # the start of the body, if the status says that the request is wrong
        kind, encoding = (head.headers.get(f"content-{name}", "") for name in ("type", "encoding"))
        self.reader = UsageReader(self._status, kind, encoding)
        self.attempts = head.attempts
        """How many servers Envoy sent the request to."""

    @property
    def calls_request_wrong(self) -> bool:
        """Whether its status says that the request is wrong."""
        return self._status in _WRONG_REQUEST

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the body. Never raises."""
        self._is_fed = True
        self.reader.feed(data)
        if self.calls_request_wrong and len(self._error) < _MOST_ERROR_BYTES:
            self._error += data[:_MOST_ERROR_BYTES]

    def shows(self, outcome: Usage | Refused | Unlearnable) -> UsageSeen:
        """Return what this outcome of the answer shows of the server's usage."""
        match outcome:
            case Usage():
                return UsageSeen.STATED
            case Unlearnable.ABSENT:
                return UsageSeen.ABSENT
            case Unlearnable.INCOMPLETE if not self._is_fed:
                return UsageSeen.UNHEARD
            case Unlearnable.ERROR if self.calls_request_wrong:
                return self._shows_wrong_request()
            case _:
                return UsageSeen.NOTHING

    def _shows_wrong_request(self) -> UsageSeen:
        if not self._error:
            return UsageSeen.SUSPECT
        named = b"stream_options" in self._error
        return UsageSeen.REFUSED if named else UsageSeen.NOTHING
