import pytest

from extproc.local.client import ClientAnswer, Ending
from extproc.local.envoy import AccessLogRow
from extproc.local.routing_fit import judge_routing
from tests.support.demo_runs import make_answer, make_record

EIGHT = {"n": 8, "completion_tokens": 800, "longest_tokens": 100}


def _fit(*answers: ClientAnswer, **fields: object) -> dict[str, int]:
    fit = judge_routing(make_record(*answers, **fields))
    names = ("refused", "clamped", "harmless", "over_routed", "too_large", "unknown")
    return {name: getattr(fit, name) for name in names if getattr(fit, name)}


def test_a_request_that_fits_is_right():
    assert _fit(make_answer()) == {}


@pytest.mark.parametrize(
    ("fields", "harm"),
    [
        ({"ending": Ending.REFUSED}, "refused"),
        ({"finish": "length"}, "clamped"),
        ({"finish": "stop"}, "harmless"),
    ],
)
def test_a_stated_output_that_does_not_fit_is_misrouted(fields, harm):
    assert _fit(make_answer(max_tokens=1049, **fields)) == {harm: 1}


def test_without_a_limit_the_actual_output_counts():
    assert _fit(make_answer(max_tokens=None, completion_tokens=1048)) == {}
    assert _fit(make_answer(max_tokens=None, completion_tokens=1049)) == {"harmless": 1}


def test_without_a_limit_an_answer_cut_at_the_window_is_clamped():
    cut = {"completion_tokens": 1048, "finish": "length"}
    assert _fit(make_answer(max_tokens=None, **cut)) == {"clamped": 1}
    assert _fit(make_answer(max_tokens=1048, **cut)) == {}


def test_what_would_have_fitted_a_smaller_pool_is_over_routed():
    assert _fit(make_answer(pool="long")) == {"over_routed": 1}
    assert _fit(make_answer(pool="long", max_tokens=1049)) == {}


def test_what_no_pool_can_hold_is_no_misroute():
    assert _fit(make_answer(prompt_tokens=20_000, pool="long")) == {"too_large": 1}


def test_tokens_come_from_usage_or_from_a_count():
    assert _fit(make_answer(prompt_tokens=0)) == {"unknown": 1}
    assert _fit(make_answer(prompt_tokens=0), prompt_tokens={"r0": 3000}) == {"harmless": 1}


def test_envoys_log_outranks_the_header():
    row = AccessLogRow("r0", "long", 200, 1, "-", 1.0)
    assert _fit(make_answer(), rows={"r0": row}) == {"over_routed": 1}


def test_known_and_misrouted_are_totals():
    fit = judge_routing(
        make_record(
            make_answer(0),
            make_answer(1, max_tokens=1049, ending=Ending.REFUSED),
            make_answer(2, max_tokens=1049),
            make_answer(3, prompt_tokens=0),
        )
    )
    assert (fit.known, fit.unknown, fit.misrouted) == (3, 1, 2)


def test_eight_sequences_are_judged_by_one():
    # 1,000 prompt tokens and 8 x 1,000 output tokens: each sequence needs 2,000 of the 2,048.
    assert _fit(make_answer(max_tokens=1000, **EIGHT)) == {}
    assert _fit(make_answer(max_tokens=1000, pool="long", **EIGHT)) == {"over_routed": 1}
    assert _fit(make_answer(max_tokens=1049, **EIGHT)) == {"harmless": 1}


def test_without_a_limit_eight_sequences_are_judged_by_the_longest():
    fields = {"max_tokens": None, "n": 8, "completion_tokens": 8000}
    assert _fit(make_answer(longest_tokens=1048, **fields)) == {}
    assert _fit(make_answer(longest_tokens=1049, **fields)) == {"harmless": 1}


def test_a_batch_is_judged_by_its_largest_prompt():
    # Ten prompts of 170 tokens each: usage counts 1,700, a sequence needs 270.
    batch = {"prompts": 10, "prompt_tokens": 20_000, "pool": "long"}
    assert _fit(make_answer(**batch), prompt_tokens={"r0": 170}) == {"over_routed": 1}
    assert _fit(make_answer(**batch), prompt_tokens={"r0": 2000}) == {}


def test_a_batch_whose_largest_prompt_is_not_counted_is_unknown():
    assert _fit(make_answer(prompts=10, prompt_tokens=1700)) == {"unknown": 1}


def test_an_embedding_needs_its_prompt_alone():
    fields = {"max_tokens": 0, "completion_tokens": 0, "prompts": 100, "prompt_tokens": 17_000}
    assert _fit(make_answer(**fields), prompt_tokens={"r0": 2048}) == {}
    assert _fit(make_answer(**fields), prompt_tokens={"r0": 2049}) == {"harmless": 1}


def test_an_answer_cut_at_the_largest_window_fits_no_pool():
    answer = make_answer(
        max_tokens=None, pool="long", prompt_tokens=16_000, completion_tokens=384, finish="length"
    )
    assert _fit(answer) == {"too_large": 1}
