"""Which servers are asked for the usage of streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.stream.usage_asking import UsageAsking, UsageForm, UsageSeen

ASKED, UNASKED = UsageForm.ASKED, UsageForm.UNASKED
STATED, ABSENT = UsageSeen.STATED, UsageSeen.ABSENT
REFUSED, SUSPECT, NOTHING = UsageSeen.REFUSED, UsageSeen.SUSPECT, UsageSeen.NOTHING


def after(*answers):
    asking = UsageAsking()
    for form, seen in answers:
        asking.learn("short", "m", form, seen)
    return asking


def asks(asking, times=3):
    return [asking.may_ask("short", "m") for _ in range(times)]


def unasked(asking, streams, seen=ABSENT):
    for _ in range(streams):
        asking.learn("short", "m", UNASKED, seen)


def test_an_unknown_server_is_not_asked():
    assert asks(UsageAsking()) == [False] * 3


def test_one_stream_without_usage_allows_one_trial():
    assert asks(after((UNASKED, ABSENT))) == [True, False, False]


def test_a_trial_that_is_due_stays_due():
    assert asks(after(*[(UNASKED, ABSENT)] * 3)) == [True, False, False]


def test_a_proven_server_stays_proven_whatever_others_leave_out():
    asking = proven()
    unasked(asking, 1000)
    assert asks(asking) == [True] * 3


def test_eight_streams_of_unseen_end_count_as_one_without_usage():
    unheard = (UNASKED, UsageSeen.UNHEARD)
    assert asks(after(*[unheard] * 7)) == [False] * 3
    assert asks(after(*[unheard] * 8)) == [True, False, False]
    assert asks(after(*[unheard] * 7, (UNASKED, STATED), *[unheard] * 7)) == [False] * 3


def test_a_pause_counts_streams_of_unseen_end_in_full():
    asking = after((UNASKED, ABSENT))
    asks(asking)
    asking.learn("short", "m", ASKED, SUSPECT)
    unasked(asking, 63, UsageSeen.UNHEARD)
    assert asks(asking) == [False] * 3
    unasked(asking, 1, UsageSeen.UNHEARD)
    assert asks(asking) == [True, False, False]


def test_a_server_that_answers_the_trial_is_always_asked():
    asking = after((UNASKED, ABSENT))
    asks(asking)
    asking.learn("short", "m", ASKED, STATED)
    assert asks(asking) == [True] * 3


def test_a_server_that_states_usage_unasked_is_never_asked():
    assert asks(after(*[(UNASKED, STATED)] * 10)) == [False] * 3


def test_a_server_that_begins_to_state_usage_unasked_is_asked_no_more():
    asking = after((UNASKED, ABSENT))
    asks(asking)
    asking.learn("short", "m", ASKED, STATED)
    asking.learn("short", "m", UNASKED, STATED)
    assert asks(asking) == [False] * 3
    unasked(asking, 1)
    assert asks(asking) == [True, False, False]


@pytest.mark.parametrize("seen", [REFUSED, SUSPECT])
def test_after_each_refusal_the_pause_is_longer(seen):
    asking = after((UNASKED, ABSENT))
    for pause in (64, 64 * 16, 64 * 16 * 16, 64 * 16 * 16):
        assert asks(asking) == [True, False, False]
        asking.learn("short", "m", ASKED, seen)
        unasked(asking, pause - 1)
        assert asks(asking) == [False] * 3
        unasked(asking, 1)


def proven():
    asking = after((UNASKED, ABSENT))
    asks(asking)
    asking.learn("short", "m", ASKED, STATED)
    return asking


def test_a_proven_server_that_names_the_field_is_asked_no_more():
    asking = proven()
    asking.learn("short", "m", ASKED, REFUSED)
    assert asks(asking) == [False] * 3


def test_refusals_of_requests_that_were_under_way_together_count_once():
    asking = proven()
    for _ in range(10):
        asking.learn("short", "m", ASKED, REFUSED)
    unasked(asking, 64)
    assert asks(asking) == [True, False, False]


@pytest.mark.parametrize("seen", [SUSPECT, NOTHING, ABSENT, UsageSeen.UNHEARD])
def test_other_errors_of_a_proven_server_change_nothing(seen):
    asking = proven()
    asking.learn("short", "m", ASKED, seen)
    assert asks(asking) == [True] * 3


@pytest.mark.parametrize("lost", [(), (NOTHING,), (ABSENT,), (UsageSeen.UNHEARD,)])
@pytest.mark.parametrize("passing", [ABSENT, UsageSeen.UNHEARD])
def test_a_lost_trial_is_repeated_soon_and_each_time_later(lost, passing):
    asking = after((UNASKED, ABSENT))
    for patience in (8, 16, 32):
        assert asks(asking) == [True, False, False]
        for seen in lost:
            asking.learn("short", "m", ASKED, seen)
        unasked(asking, patience - 1, passing)
        assert asks(asking) == [False] * 3
        unasked(asking, 1, passing)


def test_a_server_that_loses_all_trials_gets_few():
    asking, trials = after((UNASKED, ABSENT)), 0
    for _ in range(50_000):
        trials += asking.may_ask("short", "m")
        unasked(asking, 1)
    assert trials <= 14


def test_an_answered_trial_makes_lost_ones_count_no_more():
    asking = after((UNASKED, ABSENT))
    for patience in (8, 16, 32):
        asks(asking)
        unasked(asking, patience)
    asking.learn("short", "m", ASKED, STATED)
    asking.learn("short", "m", ASKED, REFUSED)
    unasked(asking, 64)
    asks(asking)
    unasked(asking, 8)
    assert asks(asking) == [True, False, False]


@pytest.mark.parametrize("seen", [REFUSED, SUSPECT])
def test_a_late_refusal_of_a_trial_that_was_waited_for_counts(seen):
    asking = after((UNASKED, ABSENT))
    asks(asking)
    unasked(asking, 8)
    asking.learn("short", "m", ASKED, seen)
    unasked(asking, 63)
    assert asks(asking) == [False] * 3


def test_an_answer_to_a_question_proves_nothing_of_answers_without_one():
    assert asks(after((ASKED, STATED), (UNASKED, STATED), (ASKED, STATED))) == [False] * 3


@pytest.mark.parametrize("seen", [REFUSED, SUSPECT])
def test_what_another_pool_refuses_on_its_behalf_leaves_it_unproven(seen):
    assert asks(after((ASKED, seen), (UNASKED, ABSENT))) == [True, False, False]


def test_while_it_is_unknown_why_a_trial_is_wrong_there_is_no_other():
    asking = after((UNASKED, ABSENT))
    asks(asking)
    asking.note_wrong("short", "m")
    unasked(asking, 10_000)
    assert asks(asking) == [False] * 3


@pytest.mark.parametrize(("seen", "pause"), [(NOTHING, 16), (SUSPECT, 64), (REFUSED, 64)])
def test_once_it_is_known_why_a_trial_is_wrong_the_next_one_follows(seen, pause):
    asking = after((UNASKED, ABSENT))
    asks(asking)
    asking.note_wrong("short", "m")
    asking.learn("short", "m", ASKED, seen)
    unasked(asking, pause - 1)
    assert asks(asking) == [False] * 3
    unasked(asking, 1)
    assert asks(asking) == [True, False, False]


def beside(asking, wrong, right):
    """Let so many streams be called wrong that were not asked, and so many be without usage."""
    for _ in range(wrong):
        asking.learn("short", "m", UNASKED, SUSPECT)
    unasked(asking, right)


def call_trial_wrong(asking):
    """Return whether there is a trial, and have it called wrong."""
    if not any(asks(asking, 64)):
        return False
    asking.note_wrong("short", "m")
    asking.learn("short", "m", ASKED, SUSPECT)
    return True


@pytest.mark.parametrize(
    ("wrong", "right", "trials"), [(0, 8, 1), (1, 60, 2), (1, 8, 3), (8, 8, 7), (72, 8, 38)]
)
def test_so_many_wrong_trials_in_a_row_are_no_chance(wrong, right, trials):
    asking, seen = UsageAsking(), 0
    beside(asking, wrong, right)
    while call_trial_wrong(asking):
        seen += 1
        beside(asking, wrong, right)
    assert seen == trials


@pytest.mark.parametrize("trials", [1, 30])
def test_trials_that_are_wrong_like_others_do_not_stop_the_asking(trials):
    asking = UsageAsking()
    for _ in range(trials):
        beside(asking, 72, 8)
        assert call_trial_wrong(asking)
    beside(asking, 72, 8)
    assert sum(asks(asking, 64)) == 1
    asking.learn("short", "m", ASKED, STATED)
    assert asks(asking) == [True] * 3


def test_one_clients_wrong_streams_are_not_each_of_the_trials():
    asking = UsageAsking()
    for stream in range(1000):
        is_trial = asking.may_ask("short", "m")
        if is_trial and stream % 10 == 0:
            break
        form = ASKED if is_trial else UNASKED
        asking.learn("short", "m", form, SUSPECT if stream % 10 else UsageSeen.UNHEARD)
    assert is_trial


def test_no_status_of_a_proven_server_changes_anything():
    asking = proven()
    for _ in range(10):
        asking.note_wrong("short", "m")
    assert asks(asking) == [True] * 3


def test_a_loss_does_not_shorten_the_pause_after_a_refusal():
    asking = after((UNASKED, ABSENT))
    asks(asking)
    asking.learn("short", "m", ASKED, REFUSED)
    asking.learn("short", "m", ASKED, NOTHING)
    unasked(asking, 63)
    assert asks(asking) == [False] * 3


def test_an_error_of_an_unknown_server_is_nothing():
    asking = UsageAsking()
    asking.note_wrong("short", "m")
    assert asks(asking) == [False] * 3


def test_what_clients_asked_for_themselves_tells_nothing():
    assert asks(after(*[(UsageForm.OTHER, seen) for seen in UsageSeen])) == [False] * 3


def test_what_clients_asked_for_themselves_takes_no_place():
    asking = UsageAsking()
    for number in range(1024):
        asking.learn("short", str(number), UsageForm.OTHER, ABSENT)
    unasked(asking, 1)
    assert asks(asking) == [True, False, False]


def test_pools_and_models_are_apart():
    asking = after((UNASKED, ABSENT))
    assert not asking.may_ask("long", "m")
    assert not asking.may_ask("short", "n")


def test_what_is_known_is_bounded():
    asking = UsageAsking()
    for number in range(3000):
        asking.learn("short", str(number), UNASKED, ABSENT)
    assert sum(asking.may_ask("short", str(number)) for number in range(3000)) == 1024


@given(st.lists(st.tuples(st.sampled_from(UsageForm), st.sampled_from(UsageSeen), st.booleans())))
def test_after_usage_unasked_the_next_stream_is_not_asked(history):
    asking = UsageAsking()
    for form, seen, then_ask in history:
        asking.learn("short", "m", form, seen)
        if then_ask:
            asking.may_ask("short", "m")
            asking.note_wrong("short", "m")
    asking.learn("short", "m", UNASKED, STATED)
    assert not asking.may_ask("short", "m")
