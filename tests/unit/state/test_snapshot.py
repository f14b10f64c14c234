"""Snapshots: they continue exactly, and hostile ones are refused."""

import math
import random
import struct
from contextlib import suppress
from hashlib import blake2b

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.budget.calibrated import Calibrated
from extproc.budget.category import Labels
from extproc.budget.learner import Learner
from extproc.budget.lengths import SavedLengths
from extproc.budget.prior import MEASURED
from extproc.budget.rows import RowEstimators
from extproc.state import snapshot
from extproc.state.snapshot import VERSION, Fault, Unusable, decode, encode, fingerprint, take
from tests.support.answers import answers, paper_estimator, small_learner

MARK = fingerprint("calibrated")


def fresh(name: str) -> Learner:
    return small_learner(paper_estimator() if name == "paper" else None)


def learn(learner: Learner, seed: int, number: int, asks: int = 0) -> Learner:
    """Teach answers; meanwhile ask for so many budgets, which must change nothing."""
    draw = random.Random(seed)
    for seen in answers(seed, number):
        if draw.random() < asks:
            learner.budget(seen.asked)
        learner.learn(seen)
    return learner


def restored(learner: Learner, name: str) -> Learner:
    data = b"".join(encode(take(learner), MARK))
    other = fresh(name)
    decode(data, MARK).load(other)
    return other


@pytest.mark.parametrize("name", ["calibrated", "paper"])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1 << 32), number=st.integers(0, 700))
def test_a_learner_continues_exactly_from_its_snapshot(name, seed, number):
    learner = learn(fresh(name), seed, number)
    other = restored(learner, name)
    assert take(other) == take(learner)
    for seen in answers(seed + 1, 60):
        assert other.budget(seen.asked) == learner.budget(seen.asked)
        learner.learn(seen)
        other.learn(seen)
    assert take(other).digest == take(learner).digest
    assert list(other.lengths.rows()) == list(learner.lengths.rows())
    assert other.learnt() == learner.learnt()


@pytest.mark.parametrize("name", ["calibrated", "paper"])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_to_ask_changes_nothing(name, seed):
    asked, quiet = learn(fresh(name), seed, 500, asks=0.5), learn(fresh(name), seed, 500)
    assert take(asked) == take(quiet)


LEARNT = take(learn(fresh("calibrated"), 1, 300))
DATA = b"".join(encode(LEARNT, MARK))


def framed(parts: list[bytes], version: int = VERSION) -> bytes:
    """A file with a right checksum, whatever its parts are."""
    header = msgspec.msgpack.encode([MARK])
    body = b"dualpool" + version.to_bytes(4, "little")
    for part in (header, *parts):
        body += len(part).to_bytes(4, "little") + part
    return body + blake2b(body, digest_size=16).digest()


def used(data: bytes) -> Learner:
    """Load what somebody wrote, and use it."""
    learner = fresh("calibrated")
    decode(data, MARK).load(learner)
    for seen in answers(2, 30):
        budget = learner.budget(seen.asked)
        assert budget.tokens >= 0
        learner.learn(seen)
    list(learner.learnt_parts())
    list(learner.lengths.rows())
    return learner


def fault(data: bytes) -> Fault:
    with pytest.raises(Unusable) as caught:
        used(data)
    return caught.value.fault


@pytest.mark.parametrize("cut", [0, 5, 11, 20, len(DATA) // 2, len(DATA) - 1])
def test_a_snapshot_that_is_cut_off_is_corrupt(cut):
    assert fault(DATA[:cut]) is Fault.CORRUPT


@given(st.integers(12, len(DATA) - 1), st.integers(1, 255))
def test_a_byte_that_changed_is_corrupt(at, flip):
    assert fault(DATA[:at] + bytes([DATA[at] ^ flip]) + DATA[at + 1 :]) is Fault.CORRUPT


def test_a_newer_format_is_told_from_an_older_one():
    assert fault(framed([], VERSION + 1)) is Fault.NEWER
    assert fault(framed([], VERSION - 1)) is Fault.FOREIGN


def test_other_features_estimators_and_secrets_are_foreign():
    with pytest.raises(Unusable, match="foreign"):
        decode(DATA, fingerprint("paper"))
    with pytest.raises(Unusable, match="foreign"):
        decode(DATA, fingerprint("calibrated", b"secret"))


def test_parts_of_another_estimator_are_corrupt():
    frames = list(take(fresh("paper")).frames)
    assert fault(framed(frames)) is Fault.CORRUPT
    with pytest.raises(Unusable, match="corrupt"):
        LEARNT.load(fresh("paper"))


def test_a_frame_that_is_cut_off_is_corrupt():
    body = DATA[:12] + b"\xff\0\0\0" + b"x"
    assert fault(body + blake2b(body, digest_size=16).digest()) is Fault.CORRUPT


def test_deep_nesting_is_corrupt():
    assert fault(framed([b"\x91" * 100_000])) is Fault.CORRUPT


def test_too_many_bytes_are_corrupt(monkeypatch):
    monkeypatch.setattr(snapshot, "MOST_BYTES", len(DATA) - 1)
    assert fault(DATA) is Fault.CORRUPT


def mutated(draw: random.Random, value: object) -> object:
    """The value with one part of it, at some depth, replaced by something odd."""
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        return [*value[:at], mutated(draw, value[at]), *value[at + 1 :]]
    if isinstance(value, bytes) and len(value) >= 8:
        at, odd = 8 * draw.randrange(len(value) // 8), draw.choice((math.nan, -1.0, 1e308, 0.5))
        return value[:at] + struct.pack("d", odd) + value[at + 8 :]
    return draw.choice((None, -1, 0, 1, 7, 1 << 40, math.nan, math.inf, 1e308, -0.5, "x", b"", []))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 32))
def test_hostile_parts_are_refused_or_harmless(seed):
    draw = random.Random(seed)
    frames = list(LEARNT.frames)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(frames))
        changed = mutated(draw, msgspec.msgpack.decode(frames[at]))
        frames[at] = msgspec.msgpack.encode(changed)
    if draw.random() < 0.3:
        draw.shuffle(frames)
    with suppress(Unusable):
        used(framed(frames))


def test_lengths_of_more_requests_than_a_bin_can_count_are_corrupt():
    rows = [(1, 1, 1 << 53)] * (1 << 12)
    part = msgspec.msgpack.encode(SavedLengths("lengths", "prose/m", rows))
    assert fault(framed([*LEARNT.frames, part])) is Fault.CORRUPT


def test_a_learner_with_less_room_keeps_a_part():
    learner = Learner(
        Calibrated(MEASURED, (1024, 2048), target=0.01, categories=2, tenants=1, models=2),
        Labels(2),
    )
    LEARNT.load(learner)
    learnt = learner.learnt()
    assert 0 < len(learnt.models) <= 2
    assert set(learnt.limits) == {"1024", "2048"}
    for seen in answers(3, 50):
        learner.learn(seen)


def rows(*names: str) -> Learner:
    estimators = {name: small_learner().estimator for name in names}
    number = {f"model{n}-x": n % len(names) for n in range(6)}
    return Learner(RowEstimators(estimators, number.get), Labels(4))


def test_rows_continue_by_their_names():
    learner, other = learn(rows("a", "b"), 4, 200), rows("a", "b")
    take(learner).load(other)
    assert take(other) == take(learner)
    fewer = rows("b", "c")
    take(learner).load(fewer)
    assert fewer.estimator.rows["b"].learnt() == learner.estimator.rows["b"].learnt()
    assert not fewer.estimator.rows["c"].learnt().models


def test_a_part_of_no_row_is_corrupt():
    with pytest.raises(Unusable, match="corrupt"):
        LEARNT.load(rows("a"))
