import pytest

from extproc.simulator.engine.sequence import Event, EventKind, Sequence, State


def test_a_new_sequence_has_computed_and_generated_nothing():
    sequence = Sequence(7, 3)
    assert (sequence.prompt_tokens, sequence.output_tokens, sequence.prefix) == (7, 3, ())
    assert (sequence.computed, sequence.produced, sequence.shared, sequence.reused) == (0, 0, 0, 0)
    assert (sequence.state, sequence.end) == (State.NEW, -1)


@pytest.mark.parametrize("lengths", [(0, 1), (1, 0), (-1, 5)])
def test_a_sequence_has_a_prompt_and_an_output(lengths):
    with pytest.raises(ValueError, match="at least one prompt token and one output token"):
        Sequence(*lengths)


def test_sequences_of_equal_lengths_are_told_apart():
    one, other = Sequence(7, 3), Sequence(7, 3)
    assert one != other
    assert len({one, other}) == 2


def test_nothing_can_be_added_to_a_sequence():
    with pytest.raises(AttributeError):
        Sequence(7, 3).priority = 1


def test_an_event_is_a_time_a_kind_and_a_sequence():
    sequence = Sequence(7, 3)
    at_ns, kind, same = Event(5, EventKind.ADMITTED, sequence)
    assert (at_ns, kind.value, same) == (5, "admitted", sequence)
