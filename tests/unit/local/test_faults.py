from dataclasses import replace

import pytest

from extproc.local.client import Ending
from extproc.local.faults import Fault, altered, altered_answers, lost, lost_answers
from tests.support.demo_runs import RECORDING, make_answer, make_record


def test_an_answer_that_arrived_as_it_left_is_sound():
    record = make_record(make_answer())
    assert (lost_answers(record), altered_answers(record)) == ((), ())


@pytest.mark.parametrize("ending", [Ending.BROKEN, Ending.TIMEOUT])
def test_an_answer_that_did_not_end_is_lost(ending):
    record = make_record(make_answer(ending=ending, error="why"))
    assert lost_answers(record) == (Fault("r0", f"{ending.value}: why"),)
    assert altered_answers(record) == ()


def test_an_answer_that_no_pool_gave_is_lost():
    answer = make_answer(status=503, ending=Ending.FAILED)
    assert lost(answer, []) == "status 503, but the request reached no pool"


def test_the_pools_own_error_is_not_lost():
    answer = make_answer(status=500, ending=Ending.FAILED)
    recordings = [replace(RECORDING, status=500)]
    assert (lost(answer, recordings), altered(answer, recordings)) == ("", "")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"request_hash": "other"}, "the pool received another request body"),
        ({"response_hash": "other"}, "the client received another body"),
        ({"status": 404}, "the pool answered 404, the client received 200"),
    ],
)
def test_any_difference_is_altered(change, what):
    recordings = [replace(RECORDING, **change)]
    assert altered(make_answer(), recordings) == what
    assert altered_answers(make_record(make_answer(), recordings={"r0": recordings}))


def test_of_several_attempts_the_last_answers():
    first = replace(RECORDING, status=400, response_hash="refusal")
    assert altered(make_answer(), [first, RECORDING]) == ""


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({}, ""),
        ({"prompt_tokens": 0}, "usage was requested but is missing"),
        ({"finish": ""}, "no finish_reason"),
        ({"completion_tokens": 101}, "101 completion tokens, max_tokens 100"),
        ({"ending": Ending.FAILED, "prompt_tokens": 0}, ""),
    ],
)
def test_an_answer_seen_by_its_client_alone_is_held_to_its_request(fields, what):
    found = altered_answers(make_record(make_answer(**fields), recorded=False))
    assert [fault.what for fault in found] == ([what] if what else [])


def test_usage_that_nobody_asked_for_is_an_alteration():
    answer = make_answer()
    item = replace(answer.item, include_usage=False)
    record = make_record(replace(answer, item=item), recorded=False)
    assert altered_answers(record) == (Fault("r0", "usage that was not requested"),)


def test_a_503_is_lost_where_nobody_saw_the_pools():
    answer = make_answer(ending=Ending.FAILED, status=503)
    assert lost_answers(make_record(answer, recorded=False)) == (Fault("r0", "status 503"),)


def test_the_limit_holds_for_each_of_several_sequences():
    eight = make_answer(n=8, completion_tokens=800)
    assert altered_answers(make_record(eight, recorded=False)) == ()
    more = make_answer(n=8, completion_tokens=801)
    (fault,) = altered_answers(make_record(more, recorded=False))
    assert fault.what == "801 completion tokens, max_tokens 100"


def test_a_request_that_the_service_extended_is_compared_without_usage():
    answer = make_answer(hash_with_usage_asked="extended", hash_less_usage="text")
    extended = replace(RECORDING, request_hash="extended", response_hash="with usage")
    assert altered(answer, [replace(extended, hash_less_usage="text")]) == ""
    changed = replace(extended, hash_less_usage="other text")
    assert altered(answer, [changed]) == "the client received another body"
