"""Which servers are asked for the usage of streams whose clients did not ask for it.

Invariants: a server is asked only after streams came from it unasked and without usage, since to
hide what it states anyway would take usage from clients that always had it. One that refuses the
field is asked again only after longer pauses, of 16,384 streams at most. A trial that is lost, as
its client may leave or Envoy not await the decision, is no refusal: another one follows after 8
streams, and after twice as many each time, as a server may break when it is asked. While an answer
says that the request is wrong, but not why, there is no other trial. If that stays unknown, it is
held against the share of wrong requests among those that were not asked, so that one client cannot
stop the asking for others.
"""

import enum
import math
from dataclasses import dataclass
from typing import Final

from extproc.budget.bounded import BoundedMap

_MOST_SERVERS: Final = 1024

# What shows that a server states no usage: a stream without, or eight whose end was not seen.
_PROOF: Final = 8
_SURE: Final = 8
_UNSURE: Final = 1

# Counted in streams without usage.
_FIRST_PAUSE: Final = 64
_LONGER: Final = 16
"""After each refusal in a row, the pause before the next trial is this many times as long."""
_MOST_PAUSE: Final = _FIRST_PAUSE * _LONGER**2
_FIRST_PATIENCE: Final = 8
"""How long a trial is waited for: a refusal comes sooner, other answers may come later."""
_SURE_REFUSAL: Final = math.log(100)
"""Trials in a row that were called wrong are a refusal if so many are by chance once in 100."""
_MOST_COUNTED: Final = 256
"""So many streams tell the share of wrong requests; older ones count less and less."""


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
    UNPROVEN = "unproven"  # it may state usage unasked
    PAUSED = "paused"  # not asked until `left` streams came without usage
    DUE = "due"  # the next stream is a trial
    TRYING = "trying"  # a trial is under way, for which `left` streams are waited
    PROVEN = "proven"  # it states usage when it is asked


@dataclass(slots=True)
class _Server:
    phase: _Phase = _Phase.UNPROVEN
    left: int = _PROOF
    next_pause: int = _FIRST_PAUSE
    next_patience: int = _FIRST_PATIENCE
    # Of streams that were not asked: those that were answered, and those that were called wrong.
    right: int = 0
    wrong: int = 0
    suspicion: float = 0.0
    """The logarithm of how unlikely it is that trials in a row are wrong of themselves."""
    repeats: int = 0
    """How many such trials there were."""
    passes: int = 0
    """So many streams pass before the next trial, lest it be the same client's each time."""

    def note_stated_unasked(self) -> None:
        self.phase, self.left = _Phase.UNPROVEN, _PROOF

    def count_down(self, proof: int) -> None:
        """Count a stream without usage, of so much weight as a proof of it."""
        self._count(right=1)
        if self.phase is not _Phase.PROVEN:
            self.left -= proof if self.phase is _Phase.UNPROVEN else 1
            if self.left <= 0:
                self.phase = _Phase.DUE

    def may_ask(self) -> bool:
        if self.phase is not _Phase.DUE:
            return self.phase is _Phase.PROVEN
        if self.passes:
            self.passes -= 1
            return False
        self.phase, self.left = _Phase.TRYING, self.next_patience
        self.next_patience = min(2 * self.next_patience, _MOST_PAUSE)
        return True

    def note_acceptance(self) -> None:
        # An answer of another pool's request, or one that came late, proves nothing of others.
        if self.phase is not _Phase.UNPROVEN:
            self.phase = _Phase.PROVEN
            self.next_pause, self.next_patience = _FIRST_PAUSE, _FIRST_PATIENCE
            self._clear_suspicion()

    def note_refusal(self) -> None:
        # Requests that were under way together are refused together: they count once.
        if self.phase not in {_Phase.UNPROVEN, _Phase.PAUSED}:
            self.phase, self.left = _Phase.PAUSED, self.next_pause
            self.next_pause = min(_LONGER * self.next_pause, _MOST_PAUSE)
            self._clear_suspicion()

    def note_wrong(self) -> None:
        if self.phase in {_Phase.DUE, _Phase.TRYING}:
            self.phase, self.left = _Phase.TRYING, _MOST_PAUSE

    def note_wrong_unasked(self) -> None:
        self._count(wrong=1)

    def note_suspect(self) -> None:
        if self.phase not in {_Phase.DUE, _Phase.TRYING}:
            return
        self.suspicion += (
            math.log((self.right + self.wrong) / self.wrong) if self.wrong else math.inf
        )
        if self.suspicion >= _SURE_REFUSAL:
            self.note_refusal()
        else:
            self.left = self.next_patience = _FIRST_PATIENCE
            self.repeats += 1
            self.passes = self.repeats

    def note_loss(self) -> None:
        if self.phase is _Phase.TRYING:
            self.left = min(self.left, self.next_patience)

    def _clear_suspicion(self) -> None:
        self.suspicion, self.repeats, self.passes = 0.0, 0, 0

    def _count(self, right: int = 0, wrong: int = 0) -> None:
        self.right, self.wrong = self.right + right, self.wrong + wrong
        if self.right + self.wrong > _MOST_COUNTED:
            self.right, self.wrong = self.right // 2, self.wrong // 2


class UsageAsking:
    """What is known of each pool and model, of 1,024 at most; others are not asked."""

    def __init__(self) -> None:
        self._servers = BoundedMap[tuple[str, str], _Server](_MOST_SERVERS)

    def may_ask(self, pool: str, model: str) -> bool:
        """Return whether to ask for the usage of a stream; True begins a trial if one is due."""
        server = self._servers.get((pool, model))
        return server is not None and server.may_ask()

    def note_wrong(self, pool: str, model: str) -> None:
        """Note, as soon as the status says so, that a server calls a request wrong that asks it.

        Call `learn` once it is known, or will not be, what its error says.
        """
        if server := self._servers.get((pool, model)):
            server.note_wrong()

    def learn(self, pool: str, model: str, form: UsageForm, seen: UsageSeen) -> None:
        """Learn what an answer of a server shows."""
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
                server.note_stated_unasked()
            case UsageForm.UNASKED, UsageSeen.SUSPECT:
                server.note_wrong_unasked()
            case UsageForm.ASKED, UsageSeen.STATED:
                server.note_acceptance()
            case UsageForm.ASKED, UsageSeen.REFUSED:
                server.note_refusal()
            case UsageForm.ASKED, UsageSeen.SUSPECT:
                server.note_suspect()
            case UsageForm.ASKED, _:
                server.note_loss()
            case _:
                pass
