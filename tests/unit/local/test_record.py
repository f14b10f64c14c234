from extproc.local.envoy import AccessLogRow
from tests.support.demo_runs import make_answer, make_record


def test_usage_counts_all_prompts_and_the_count_the_largest():
    batch = make_answer(prompts=4, prompt_tokens=1000)
    record = make_record(batch, prompt_tokens={"r0": 300})
    assert record.all_prompt_tokens(batch) == 1000
    assert record.largest_prompt_tokens(batch) == 300


def test_the_count_stands_in_for_missing_usage():
    single = make_answer(prompt_tokens=0)
    record = make_record(single, prompt_tokens={"r0": 300})
    assert (record.all_prompt_tokens(single), record.largest_prompt_tokens(single)) == (300, 300)


def test_without_usage_the_total_of_a_batch_is_unknown():
    batch = make_answer(prompts=4, prompt_tokens=0)
    assert make_record(batch, prompt_tokens={"r0": 300}).all_prompt_tokens(batch) == 0


def test_what_nobody_counted_is_unknown():
    batch = make_answer(prompts=4, prompt_tokens=1000)
    assert make_record(batch).largest_prompt_tokens(batch) == 0


def test_answers_are_grouped_by_the_header_unless_the_log_says_otherwise():
    first, second = make_answer(0), make_answer(1)
    record = make_record(first, second, rows={"r1": AccessLogRow("r1", "long", 200, 1, "-", 1.0)})
    assert record.by_pool() == {"short": [first], "long": [second]}


def test_an_answer_without_a_pool_counts_as_the_largest_pools():
    answer = make_answer(pool="")
    assert make_record(answer).by_pool() == {"short": [], "long": [answer]}
