import math

from hypothesis import given
from hypothesis import strategies as st

from extproc.local.client import Ending
from extproc.local.envoy import AccessLogRow
from extproc.local.inquiry import LearntRatio
from extproc.local.tally import Spread, spread, tally
from tests.support.demo_runs import make_answer, make_record


def test_the_true_ratio_is_all_bytes_over_all_tokens():
    record = make_record(
        make_answer(0, prompt_tokens=1000),
        make_answer(1, prompt_tokens=0),
        learnt={"prose/m": LearntRatio(4.2, 0.1, 2)},
        prompt_tokens={"r1": 600},
        text_tokens={"r0": 800},
    )
    (category,) = tally(record).categories
    assert (category.true, category.without_template, category.learnt) == (5.0, 5.0, 4.2)
    assert round(category.error, 3) == -0.16


def test_a_category_that_was_not_learnt_has_no_figures():
    (category,) = tally(make_record(make_answer(prompt_tokens=0))).categories
    assert (category.samples, math.isnan(category.true), math.isnan(category.error)) == (
        0,
        True,
        True,
    )


def test_times_are_of_streams_and_from_the_client():
    short, long = tally(make_record(make_answer(), preemptions={"short": 3})).pools
    assert (short.ttft_p50_s, short.tpot_p99_s, short.preemptions) == (0.5, 0.1, 3)
    assert math.isnan(long.ttft_p50_s)
    assert long.preemptions is None


def test_reasons_are_counted_by_pool():
    short, long = tally(make_record(make_answer(), make_answer(1, pool="", reason=""))).pools
    assert (short.reasons, long.reasons) == ({"fits": 1}, {"not routed": 1})


def test_added_latency_leaves_out_what_envoy_did_not_measure():
    rows = {
        str(n): AccessLogRow(str(n), "short", 200, 1, "-", us)
        for n, us in enumerate((1000, 3000, math.nan))
    }
    assert tally(make_record(make_answer(), rows=rows)).added_ms == Spread(2, 1.0, 3.0)


def test_batches_and_n_are_counted_as_several_sequences():
    answers = (make_answer(0), make_answer(1, n=8), make_answer(2, prompts=3))
    assert tally(make_record(*answers)).several_sequences == 2


def test_the_share_of_the_short_pool_is_alpha():
    assert tally(make_record(make_answer(), make_answer(1, pool="long"))).short_share == 0.5


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_among_the_values_and_in_order(values):
    found = spread(values)
    assert found.p50 in values
    assert found.p99 in values
    assert found.p50 <= found.p99


def test_no_values_have_no_percentiles():
    assert math.isnan(spread([]).p50)


def test_a_report_is_sound_if_nothing_is_lost_or_altered():
    assert tally(make_record(make_answer())).sound
    assert not tally(make_record(make_answer(ending=Ending.BROKEN))).sound
    assert not tally(make_record(make_answer(response_hash="other"))).sound


def test_the_time_per_token_of_several_sequences_is_that_of_the_longest():
    answer = make_answer(n=8, completion_tokens=88, longest_tokens=11)
    short, _ = tally(make_record(answer)).pools
    assert short.tpot_p50_s == 0.1


def test_the_ratio_of_a_batch_counts_all_its_prompts():
    batch = make_answer(prompts=4, prompt_tokens=1000)
    (category,) = tally(make_record(batch, prompt_tokens={"r0": 250})).categories
    assert category.true == 4.0
