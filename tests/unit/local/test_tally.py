import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.local.client import ClientAnswer, Ending
from extproc.local.envoy import AccessLogRow
from extproc.local.fleet import StackPool
from extproc.local.inquiry import LearntRatio
from extproc.local.tally import DemoRecord, Fault, Spread, altered, lost, spread, tally
from extproc.local.traffic import Item, TrafficApi
from extproc.local.witness import Sighting

_POOLS = (
    StackPool("short", "http://s", "m", 2048, simulated=True),
    StackPool("long", "http://l", "m", 16_384, simulated=True),
)
_SIGHTING = Sighting("r0", "short", 200, "asked", "answered", 8, complete=True)


def _answer(number: int = 0, max_tokens: int | None = 100, **fields: object) -> ClientAnswer:
    item = Item(f"r{number}", "english", TrafficApi.CHAT, b"{}", 4000, max_tokens, True, True, 0.0)
    told = {
        "ending": Ending.COMPLETE,
        "status": 200,
        "request_hash": "asked",
        "response_hash": "answered",
        "pool": "short",
        "reason": "fits",
        "category": "prose/m",
        "prompt_tokens": 1000,
        "completion_tokens": 11,
        "finish": "stop",
        "started_s": 0.5,
        "ended_s": 1.5,
    }
    return ClientAnswer(item=item, **(told | fields))


def _seen(*answers: ClientAnswer, **fields: object) -> DemoRecord:
    told = {
        "pools": _POOLS,
        "sightings": {answer.item.request_id: [_SIGHTING] for answer in answers},
        "rows": {},
        "learnt": {},
        "prompt_tokens": {},
        "text_tokens": {},
        "preemptions": {},
        "elapsed_s": 1.0,
    }
    return DemoRecord(answers=answers, **(told | fields))


def _fit(*answers: ClientAnswer, **fields: object) -> dict[str, int]:
    fit = tally(_seen(*answers, **fields)).fit
    names = ("refused", "clamped", "harmless", "over_routed", "too_large", "unknown")
    return {name: getattr(fit, name) for name in names if getattr(fit, name)}


def test_a_request_that_fits_is_right():
    assert _fit(_answer()) == {}


@pytest.mark.parametrize(
    ("fields", "harm"),
    [
        ({"ending": Ending.REFUSED}, "refused"),
        ({"finish": "length"}, "clamped"),
        ({"finish": "stop"}, "harmless"),
    ],
)
def test_a_stated_output_that_does_not_fit_is_misrouted(fields, harm):
    assert _fit(_answer(max_tokens=1049, **fields)) == {harm: 1}


def test_without_a_limit_the_actual_output_counts():
    assert _fit(_answer(max_tokens=None, completion_tokens=1048)) == {}
    assert _fit(_answer(max_tokens=None, completion_tokens=1049)) == {"harmless": 1}


def test_without_a_limit_an_answer_cut_at_the_window_is_clamped():
    cut = {"completion_tokens": 1048, "finish": "length"}
    assert _fit(_answer(max_tokens=None, **cut)) == {"clamped": 1}
    assert _fit(_answer(max_tokens=1048, **cut)) == {}


def test_what_would_have_fitted_a_smaller_pool_is_over_routed():
    assert _fit(_answer(pool="long")) == {"over_routed": 1}
    assert _fit(_answer(pool="long", max_tokens=1049)) == {}


def test_what_no_pool_can_hold_is_no_misroute():
    assert _fit(_answer(prompt_tokens=20_000, pool="long")) == {"too_large": 1}


def test_tokens_come_from_usage_or_from_a_count():
    assert _fit(_answer(prompt_tokens=0)) == {"unknown": 1}
    assert _fit(_answer(prompt_tokens=0), prompt_tokens={"r0": 3000}) == {"harmless": 1}


def test_envoys_log_outranks_the_header():
    row = AccessLogRow("r0", "long", 200, 1, "-", 1.0)
    assert _fit(_answer(), rows={"r0": row}) == {"over_routed": 1}


def test_an_answer_that_arrived_as_it_left_is_sound():
    report = tally(_seen(_answer()))
    assert (report.sound, report.lost, report.altered) == (True, (), ())


@pytest.mark.parametrize("ending", [Ending.BROKEN, Ending.TIMEOUT])
def test_an_answer_that_did_not_end_is_lost(ending):
    report = tally(_seen(_answer(ending=ending, error="why")))
    assert report.lost == (Fault("r0", f"{ending.value}: why"),)
    assert not report.sound
    assert report.altered == ()


def test_an_answer_that_no_pool_gave_is_lost():
    answer = _answer(status=503, ending=Ending.FAILED)
    assert lost(answer, []) == "status 503, and no pool has seen the request"


def test_the_pools_own_error_is_not_lost():
    answer = _answer(status=500, ending=Ending.FAILED)
    sightings = [replace(_SIGHTING, status=500)]
    assert (lost(answer, sightings), altered(answer, sightings)) == ("", "")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"request_hash": "other"}, "the pool was sent another request body"),
        ({"response_hash": "other"}, "the client got another body"),
        ({"status": 404}, "the pool answered 404, the client got 200"),
    ],
)
def test_any_difference_is_altered(change, what):
    sightings = [replace(_SIGHTING, **change)]
    assert altered(_answer(), sightings) == what
    assert not tally(_seen(_answer(), sightings={"r0": sightings})).sound


def test_of_several_attempts_the_last_answers():
    first = replace(_SIGHTING, status=400, response_hash="refusal")
    assert altered(_answer(), [first, _SIGHTING]) == ""


def test_the_true_ratio_is_all_bytes_over_all_tokens():
    seen = _seen(
        _answer(0, prompt_tokens=1000),
        _answer(1, prompt_tokens=0),
        learnt={"prose/m": LearntRatio(4.2, 0.1, 2)},
        prompt_tokens={"r1": 600},
        text_tokens={"r0": 800},
    )
    (category,) = tally(seen).categories
    assert (category.true, category.without_template, category.learnt) == (5.0, 5.0, 4.2)
    assert round(category.error, 3) == -0.16


def test_a_category_that_was_not_learnt_has_no_figures():
    (category,) = tally(_seen(_answer(prompt_tokens=0))).categories
    assert (category.samples, math.isnan(category.true), math.isnan(category.error)) == (
        0,
        True,
        True,
    )


def test_times_are_of_streams_and_from_the_client():
    short, long = tally(_seen(_answer(), preemptions={"short": 3})).pools
    assert (short.ttft_p50_s, short.tpot_p99_s, short.preemptions) == (0.5, 0.1, 3)
    assert math.isnan(long.ttft_p50_s)
    assert long.preemptions is None


def test_reasons_are_counted_by_pool():
    short, long = tally(_seen(_answer(), _answer(1, pool="", reason=""))).pools
    assert (short.reasons, long.reasons) == ({"fits": 1}, {"not routed": 1})


def test_added_latency_leaves_out_what_envoy_did_not_measure():
    rows = {
        str(n): AccessLogRow(str(n), "short", 200, 1, "-", us)
        for n, us in enumerate((1000, 3000, math.nan))
    }
    assert tally(_seen(_answer(), rows=rows)).added_ms == Spread(2, 1.0, 3.0)


def test_the_share_of_the_short_pool_is_alpha():
    assert tally(_seen(_answer(), _answer(1, pool="long"))).short_share == 0.5


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_among_the_values_and_in_order(values):
    found = spread(values)
    assert found.p50 in values
    assert found.p99 in values
    assert found.p50 <= found.p99


def test_no_values_have_no_percentiles():
    assert math.isnan(spread([]).p50)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({}, ""),
        ({"prompt_tokens": 0}, "usage was asked for and is not there"),
        ({"finish": ""}, "no finish_reason"),
        ({"completion_tokens": 101}, "101 completion tokens, max_tokens 100"),
        ({"ending": Ending.FAILED, "prompt_tokens": 0}, ""),
    ],
)
def test_an_answer_seen_by_its_client_alone_is_held_to_its_request(fields, what):
    report = tally(_seen(_answer(**fields), witnessed=False))
    assert [fault.what for fault in report.altered] == ([what] if what else [])


def test_usage_that_nobody_asked_for_is_an_alteration():
    answer = _answer()
    item = replace(answer.item, include_usage=False)
    report = tally(_seen(replace(answer, item=item), witnessed=False))
    assert report.altered == (Fault("r0", "usage that nobody asked for"),)


def test_a_503_is_lost_where_nobody_saw_the_pools():
    answer = _answer(ending=Ending.FAILED, status=503)
    assert tally(_seen(answer, witnessed=False)).lost == (Fault("r0", "status 503"),)
