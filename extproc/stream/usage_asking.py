"""Which servers are asked for the usage of streams whose clients did not ask for it.

Invariants: a server is asked only after a stream came from it unasked and without usage, since to
hide what it states anyway would take usage from clients that always had it. A server that refuses
the field is asked again only after longer pauses, of 16,384 streams at most.
"""

import enum
from dataclasses import dataclass
from typing import Final

from extproc.budget.bounded import BoundedMap

_MOST_SERVERS: Final = 1024

# Pauses are counted in streams without usage, one whose end was not seen as an eighth.
_SURE: Final = 8
_UNSURE: Final = 1
_FIRST_PAUSE: Final = 64 * _SURE
_LONGER: Final = 16
"""After each refusal in a row, the pause before the next trial is this many times as long."""
_MOST_PAUSE: Final = _FIRST_PAUSE * _LONGER**2


class UsageForm(enum.Enum):
    """What was done about the usage of a request."""

    ASKED = "asked"  # the service added the field
    UNASKED = "unasked"  # it could have: a stream that states nothing about usage
    OTHER = "other"  # no stream, or the client itself stated whether it wants usage


class UsageSeen(enum.Enum):
    """What an answer shows of it."""

    STATED = "stated"
    ABSENT = "absent"  # complete, but without usage
    UNHEARD = "unheard"  # Envoy told of its head alone: no usage, or the client left
    REFUSED = "refused"  # the request is wrong, and the error names the field
    SUSPECT = "suspect"  # the request is wrong; the error was not seen
    NOTHING = "nothing"  # a broken answer, or another error


class _Phase(enum.Enum):
    WAITING = "waiting"  # not asked until `pause` streams came without usage
    DUE = "due"  # the next stream is a trial
    TRYING = "trying"  # a trial is under way; `pause` bounds how long it is waited for
    PROVEN = "proven"


@dataclass(slots=True)
class _Server:
    phase: _Phase = _Phase.WAITING
    pause: int = _SURE
    next_pause: int = _FIRST_PAUSE

    def wait(self, pause: int) -> None:
        self.phase, self.pause = _Phase.WAITING, pause

    def count_down(self, streams: int) -> None:
        if self.phase in {_Phase.WAITING, _Phase.TRYING}:
            self.pause -= streams
            if self.pause <= 0:
                self.phase = _Phase.DUE

    def note_refusal(self) -> None:
        # Requests that were under way together are refused together: they count once.
        if self.phase is not _Phase.WAITING:
            self.wait(self.next_pause)
            self.next_pause = min(_LONGER * self.next_pause, _MOST_PAUSE)

    def note_acceptance(self) -> None:
        self.phase, self.next_pause = _Phase.PROVEN, _FIRST_PAUSE


class UsageAsking:
    """What is known of each pool and model, of 1,024 at most; others are not asked."""

    def __init__(self) -> None:
        self._servers = BoundedMap[tuple[str, str], _Server](_MOST_SERVERS)

    def may_ask(self, pool: str, model: str) -> bool:
        """Return whether to ask for the usage of a stream; True begins a trial if one is due."""
        server = self._servers.get((pool, model))
        if server is None:
            return False
        if server.phase is _Phase.DUE:
            server.phase, server.pause = _Phase.TRYING, _FIRST_PAUSE
            return True
        return server.phase is _Phase.PROVEN

    def learn(self, pool: str, model: str, form: UsageForm, seen: UsageSeen) -> None:
        """Take in what an answer of a server shows."""
        key = pool, model
        if form is UsageForm.OTHER or not self._servers.has_room(key):
            return
        server = self._servers.get(key) or _Server()
        self._servers.touch(key, server)
        match form, seen:
            case UsageForm.UNASKED, UsageSeen.ABSENT:
                server.count_down(_SURE)
            case UsageForm.UNASKED, UsageSeen.UNHEARD:
                server.count_down(_UNSURE)
            case UsageForm.UNASKED, UsageSeen.STATED:
                server.wait(_SURE)
            case UsageForm.ASKED, UsageSeen.STATED:
                server.note_acceptance()
            case UsageForm.ASKED, UsageSeen.REFUSED:
                server.note_refusal()
            case UsageForm.ASKED, UsageSeen.SUSPECT if server.phase is _Phase.TRYING:
                server.note_refusal()
            case _:
                pass
