"""A snapshot of everything learnt, as bytes.

    dualpool<version>   the format's version, in four bytes
    frame ...           a length of four bytes, and a part as MessagePack; the first is the header
    checksum            16 bytes over all before

It is read as input from outside. Invariants: hostile bytes raise Unusable and nothing else, and
cost memory in proportion to their number, at most MOST_BYTES; a snapshot that is read continues
exactly as what was saved: the same budgets, and the same after further answers, to the last bit.
"""

import enum
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec

from extproc.budget.calibrated import SavedCalibrated
from extproc.budget.families import SavedWord
from extproc.budget.features import FEATURES
from extproc.budget.learner import Learner
from extproc.budget.lengths import SavedLengths
from extproc.budget.paper import SavedRatio, SavedRatios
from extproc.budget.prefixes import SavedPrefixes
from extproc.budget.prior import MEASURED
from extproc.budget.rows import SavedRow
from extproc.budget.saved import SavedLabels, SavedWeights
from extproc.budget.states import SavedCategory, SavedModel
from extproc.budget.tenants import SavedAccount, SavedFit, SavedTenants, SavedTenantState
from extproc.budget.token_starts import DIGEST

VERSION: Final = 2
"""Of the format and of what the numbers in it mean: count it up when either changes."""
MOST_BYTES: Final = 1 << 27
"""The largest snapshot that is written or read."""
_MAGIC: Final = b"dualpool"
_LENGTH: Final = struct.Struct("<I")
_BEGIN: Final = len(_MAGIC) + _LENGTH.size
_DIGEST_BYTES: Final = 16

_Part = (
    SavedAccount
    | SavedCalibrated
    | SavedCategory
    | SavedFit
    | SavedLabels
    | SavedLengths
    | SavedModel
    | SavedPrefixes
    | SavedRatio
    | SavedRatios
    | SavedRow
    | SavedTenants
    | SavedTenantState
    | SavedWeights
    | SavedWord
)


class Fault(enum.StrEnum):
    """Why a snapshot cannot be used."""

    CORRUPT = "corrupt"
    FOREIGN = "foreign"  # of other features, another prior, estimator, secret or kind of machine
    NEWER = "newer"


class Unusable(Exception):  # noqa: N818 - says what was read, as UnreadableRequest does
    """A snapshot cannot be used."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class _Header(msgspec.Struct, frozen=True, array_like=True):
    fingerprint: bytes


_HEADER: Final = msgspec.msgpack.Decoder(_Header)
_PARTS: Final = msgspec.msgpack.Decoder(_Part)
_ENCODER: Final = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything learnt at one moment."""

    frames: tuple[bytes, ...]
    """The parts of a learner, encoded."""

    @property
    def digest(self) -> str:
        """A digest of what was learnt, equal where the same was learnt."""
        return _checksum(self.frames).hex()

    def load(self, learner: Learner) -> None:
        """Have a learner that has learnt nothing continue from here. Raises Unusable."""
        with _as_corrupt():
            learner.load(map(_PARTS.decode, self.frames))


@contextmanager
def _as_corrupt() -> Iterator[None]:
    """Raise what hostile bytes may cause as Unusable."""
    try:
        yield
    except (
        msgspec.MsgspecError,
        ValueError,
        ArithmeticError,
        RecursionError,
        struct.error,
    ) as error:
        raise Unusable(Fault.CORRUPT) from error


def take(learner: Learner) -> Snapshot:
    """Take a snapshot at once."""
    return Snapshot(tuple(frames_of(learner)))


def frames_of(learner: Learner) -> Iterator[bytes]:
    """Yield the frames of a snapshot, each within a millisecond.

    Nothing may be learnt between two of them.
    """
    return map(_ENCODER.encode, learner.save())


def fingerprint(estimator: str, secret: bytes = b"") -> bytes:
    """Return a digest of all that must be the same to continue from a snapshot.

    `secret` is that of the digests in it.
    """
    told = f"{estimator}\n{FEATURES}\n{DIGEST}\n{MEASURED}\n{sys.byteorder}".encode()
    return blake2b(told, key=secret, digest_size=_DIGEST_BYTES).digest()


def encode(snapshot: Snapshot, mark: bytes) -> Iterator[bytes]:
    """Yield the bytes of a snapshot; `mark` is its fingerprint."""
    checksum = blake2b(digest_size=_DIGEST_BYTES)
    for chunk in _chunks(snapshot, mark):
        checksum.update(chunk)
        yield chunk
    yield checksum.digest()


def _chunks(snapshot: Snapshot, mark: bytes) -> Iterator[bytes]:
    yield _MAGIC + _LENGTH.pack(VERSION)
    header = _Header(mark)
    for frame in (_ENCODER.encode(header), *snapshot.frames):
        yield _LENGTH.pack(len(frame))
        yield frame


def decode(data: bytes, mark: bytes) -> Snapshot:
    """Read what `encode` yielded. Raises Unusable; Snapshot.load may do so as well."""
    if len(data) > MOST_BYTES or not data.startswith(_MAGIC) or len(data) < _BEGIN:
        raise Unusable(Fault.CORRUPT)
    (version,) = _LENGTH.unpack_from(data, len(_MAGIC))
    if version > VERSION:
        raise Unusable(Fault.NEWER)
    if version < VERSION:
        raise Unusable(Fault.FOREIGN)
    body, checksum = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if _checksum([body]) != checksum:
        raise Unusable(Fault.CORRUPT)
    with _as_corrupt():
        first, *frames = _frames(body)
        header = _HEADER.decode(first)
    if header.fingerprint != mark:
        raise Unusable(Fault.FOREIGN)
    return Snapshot(tuple(frames))


def _frames(body: bytes) -> Iterator[bytes]:
    at = _BEGIN
    while at < len(body):
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if at + length > len(body):
            raise ValueError("a frame is cut off")
        yield body[at : at + length]
        at += length


def _checksum(chunks: Iterable[bytes]) -> bytes:
    checksum = blake2b(digest_size=_DIGEST_BYTES)
    for chunk in chunks:
        checksum.update(chunk)
    return checksum.digest()
