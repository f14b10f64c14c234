"""One replica's view of the log, entry by entry."""

from contextlib import suppress
from itertools import count

import msgspec
import pytest
from hypothesis import given as given_bytes
from hypothesis import strategies as st

from extproc.state import log as module
from extproc.state.log import (
    AT_ONCE,
    Check,
    Checkpoint,
    Diverged,
    Join,
    Log,
    Marks,
    Observed,
    Report,
    decode_marks,
    how_to_join,
    order_of,
)
from tests.support.answers import sound_answers

SEEN = list(sound_answers(1, 20))
OTHER = b"another."


class Given:
    """A log that one replica has joined; `put` appends entries of any kind and reads them."""

    def __init__(self) -> None:
        self.positions = (f"{number}-0" for number in count(2))
        self.names = (b"%08d" % number for number in count())
        self.log = Log(lambda: next(self.names))
        self.log.join("1-0", b"", Marks({}))
        self.log.settle()

    def put(self, entry):
        content = entry if isinstance(entry, bytes) else msgspec.msgpack.encode(entry)
        return self.log.step(next(self.positions), content)

    def append(self):
        """Append what is due; read it."""
        actions = [self.put(entry) for entry in self.log.due()]
        self.log.settle()
        return actions

    def add(self, number):
        for seen in SEEN[:number]:
            self.log.add(seen)


@pytest.fixture
def given():
    return Given()


def test_own_observations_are_learnt_once_the_log_has_them(given):
    given.add(3)
    assert given.log.pending == 3
    assert given.append() == [tuple(SEEN[:3])]
    assert given.log.pending == 0
    assert given.append() == []


def test_what_the_log_does_not_have_is_appended_again(given):
    given.add(3)
    first = given.log.due()
    assert given.log.due() == []  # not before the log was read to its end
    given.log.settle()
    assert given.log.due() == first


def test_at_most_so_many_are_appended_at_once(given):
    for _ in range(AT_ONCE + 1):
        given.log.add(SEEN[0])
    assert sum(map(len, given.append())) == AT_ONCE
    assert given.log.pending == 1


def test_an_entry_that_comes_again_is_passed_over(given):
    entry = Observed(OTHER, 1, SEEN[:2])
    assert given.put(entry) == tuple(SEEN[:2])
    assert given.put(entry) == ()


def test_an_entry_that_comes_late_changes_nothing(given):
    given.put(Observed(OTHER, 1, SEEN[:2]))
    given.put(Observed(OTHER, 3, SEEN[2:4]))
    assert given.put(Observed(OTHER, 1, SEEN[:2])) == ()
    assert given.put(Observed(OTHER, 3, SEEN[2:4])) == ()


def test_of_an_entry_that_comes_in_part_again_the_rest_is_learnt(given):
    given.put(Observed(OTHER, 1, SEEN[:2]))
    assert given.put(Observed(OTHER, 2, SEEN[1:4])) == tuple(SEEN[2:4])


def test_nothing_is_learnt_behind_a_gap(given):
    assert given.put(Observed(OTHER, 2, SEEN[:1])) == ()
    assert given.put(Observed(OTHER, 1, SEEN[:1])) == tuple(SEEN[:1])


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x91" * 100_000, b"\x94\x00\xa1a\x01\x90"])
def test_what_is_no_entry_is_passed_over(given, content):
    assert given.put(content) == ()
    assert given.log.unsound == 1


@given_bytes(st.binary(max_size=200))
def test_no_bytes_raise(content):
    given = Given()
    given.put(content)
    given.put(b"\x94\x00" + content)
    with suppress(msgspec.MsgspecError):
        decode_marks(content)


def test_an_observation_out_of_range_is_counted_but_not_learnt(given):
    wrong = msgspec.structs.replace(SEEN[1], prompt_tokens=-1)
    assert given.put(Observed(OTHER, 1, [SEEN[0], wrong])) == (SEEN[0],)
    assert given.put(Observed(OTHER, 3, [SEEN[2]])) == (SEEN[2],)
    assert given.log.unsound == 1


def test_an_own_one_out_of_range_is_not_appended(given):
    given.log.add(msgspec.structs.replace(SEEN[1], window=0))
    assert (given.log.pending, given.log.unsound) == (0, 1)


def test_it_knows_the_entry_that_it_read_last(given):
    given.put(b"x")
    assert given.log.follows([("2-0", b"x"), ("3-0", b"y")])
    assert not given.log.follows([("2-0", b"another")])
    assert not given.log.follows([("3-0", b"y")])
    assert not given.log.follows([])


def test_the_first_of_two_checkpoints_at_once_counts(given):
    assert given.put(Checkpoint(OTHER, "0-0")) == Check(mine=False)
    assert given.put(Checkpoint(given.log.origin, "0-0")) == ()
    assert given.put(Checkpoint(given.log.origin, "2-0")) == Check(mine=True)


def test_replicas_agree_where_all_report_the_same(given):
    given.log.propose()
    assert given.append() == [Check(mine=True)]
    assert not given.log.agrees
    given.log.checked(b"same", stored=True)
    given.append()
    assert given.put(Report(OTHER, "2-0", b"same", stored=False)) == ()
    assert given.log.agrees
    assert given.log.replicas == 2
    assert given.put(Report(b"a third.", "2-0", b"else", stored=False)) == ()
    assert not given.log.agrees


def test_one_that_differed_does_until_it_has_reported_again(given):
    pass_a_checkpoint(given)
    given.put(Report(OTHER, given.log.checkpoint, b"else", stored=False))
    pass_a_checkpoint(given)
    assert not given.log.agrees
    given.put(Report(OTHER, given.log.checkpoint, b"same", stored=False))
    assert given.log.agrees


def pass_a_checkpoint(given):
    given.log.propose()
    given.append()
    given.log.checked(b"same", stored=False)
    given.append()


def test_they_are_counted_by_the_last_two_checkpoints(given):
    for position in ("2-0", "5-0", "7-0"):
        given.log.propose()
        given.append()
        given.log.checked(b"same", stored=False)
        given.append()
        if position == "2-0":
            given.put(Report(OTHER, position, b"same", stored=False))
            assert given.log.replicas == 2
    assert given.log.replicas == 1


def test_what_differs_from_the_stored_snapshot_has_diverged(given):
    given.put(Checkpoint(OTHER, "0-0"))
    assert given.put(Report(b"a third.", "2-0", b"else", stored=True)) == ()  # not digested yet
    given.log.checked(b"same", stored=False)
    assert given.put(Report(OTHER, "2-0", b"else", stored=True)) == Diverged()
    assert given.put(Report(OTHER, "1-0", b"else", stored=True)) == ()  # of another checkpoint


def test_it_appends_again_what_a_snapshot_does_not_have(given):
    given.add(3)
    before = decode_marks(given.log.marks)
    given.append()
    given.log.lose_place()
    assert given.log.due() == []
    given.log.join("1-0", b"", before)
    given.log.settle()
    assert given.append() == [tuple(SEEN[:3])]


def test_what_is_not_kept_any_more_is_lost_and_counted(given, monkeypatch):
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    given.add(5)
    origin = given.log.origin
    given.log.settle()  # the first number that counts is gone
    assert given.log.lost == 3
    assert given.log.origin != origin
    assert given.append() == [tuple(SEEN[3:5])]


def test_an_origin_that_another_counts_for_is_left(given):
    given.add(1)
    given.append()
    given.put(Observed(given.log.origin, 2, SEEN[:5]))
    given.add(2)
    given.log.settle()
    assert given.append() == [tuple(SEEN[:2])]
    assert given.log.lost == 0


def test_an_origin_that_was_forgotten_for_others_counts_anew(given, monkeypatch):
    monkeypatch.setattr(module, "MOST_ORIGINS", 2)
    given.add(1)
    given.append()
    for other in (OTHER, b"a third."):
        given.put(Observed(other, 1, SEEN[:1]))
    given.log.settle()
    given.log.add(SEEN[4])
    assert given.append() == [(SEEN[4],)]
    assert given.log.lost == 0


def test_a_log_remembers_so_many_reports(given, monkeypatch):
    monkeypatch.setattr(module, "MOST_ORIGINS", 2)
    given.put(Checkpoint(OTHER, "0-0"))
    for number in range(5):
        given.put(Report(b"%08d" % number, "2-0", b"", stored=False))
    assert given.log.replicas == 2


def test_alone_it_learns_at_once_and_appends_all_later(given):
    before = decode_marks(given.log.marks)
    assert not given.log.add(SEEN[0])
    assert list(given.log.drift()) == SEEN[:1]
    assert given.log.position is None
    assert given.log.add(SEEN[1])
    assert decode_marks(given.log.marks).origins == {given.log.origin: 2}
    given.log.join("1-0", b"", before)
    given.log.settle()
    assert given.append() == [tuple(SEEN[:2])]


@pytest.mark.parametrize(
    ("usable", "empty", "was_in", "waited_s", "how"),
    [
        (True, False, False, 0, Join.LOAD),
        (False, True, True, 0, Join.SEED),
        (False, True, False, 0, Join.WAIT),
        (False, True, False, module.FRESH_S, Join.SEED),
        (False, False, True, module.FRESH_S, Join.WAIT),
        (False, False, True, module.BROKEN_S, Join.SEED),
    ],
)
def test_how_it_gets_a_place_in_the_log(usable, empty, was_in, waited_s, how):
    assert how_to_join(usable=usable, empty=empty, was_in=was_in, waited_s=waited_s) is how


def test_positions_are_ordered_by_their_numbers():
    assert order_of("9-10") > order_of("9-9")
    assert order_of("10-0") > order_of("9-10")


def test_the_digest_covers_what_was_learnt_and_where(given):
    before = given.log.digest_with("learnt")
    assert given.log.digest_with("else") != before
    given.put(Checkpoint(OTHER, given.log.checkpoint))
    assert given.log.digest_with("learnt") != before


def test_hostile_marks_are_refused():
    for data in (b"", b"\x92\x81\xc4\x01a\x01\xa30-0", b"\x92\x80\xa1x"):
        with pytest.raises(msgspec.MsgspecError):
            decode_marks(data)
