"""A study as tables and sentences."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from extproc.planner.report.text import (
    headline,
    introduction,
    one_pool,
    print_study,
    seconds,
    tables,
)
from extproc.planner.sizing.question import Objectives, SlotRule
from extproc.planner.sizing.study import Study, examine
from tests.support.planning_cases import ALONE_PLAN, LONG_PROMPTS, ask

STUDY = examine(ask(), max_pools=2)
SMALL = examine(ask(rate_per_s=2), max_pools=1)


def printed(study: Study, *notes: str) -> str:
    out = io.StringIO()
    print_study(Console(file=out, width=110), study, notes)
    return out.getvalue()


def table(title: str, study: Study = STUDY) -> Table:
    return next(each for each in tables(study) if each.title == title)


def rows(found: Table) -> list[tuple[str, ...]]:
    return list(zip(*(column.cells for column in found.columns), strict=True))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0004, "0 ms"), (0.112, "112 ms"), (0.9996, "1000 ms"), (1, "1.00 s"), (math.inf, "never")],
)
def test_a_time_is_in_ms_below_a_second(value, text):
    assert seconds(value) == text


def test_the_introduction_states_the_question():
    text = " ".join(introduction(STUDY.question))
    assert "LMSYS: 200 requests/s on a100-llama70b." in text
    assert "8 GPU at $2.21 per GPU and hour, 8760 hours a year" in text
    assert "P99 TTFT 2.00 s, P99 TPOT 80 ms, utilisation 85%" in text
    assert "Routed by the perfect estimator" in text


def test_a_profile_without_a_price_is_said_to_have_none():
    question = STUDY.question
    free = replace(question, profile=replace(question.profile, price_per_gpu_h=0.0))
    assert "8 GPU without a price (--price states one), 8760 hours" in " ".join(introduction(free))


@pytest.mark.parametrize(
    ("rule", "text"),
    [(SlotRule.WINDOW, "at full length"), (SlotRule.OCCUPANCY, "at actual lengths")],
)
def test_the_introduction_states_how_slots_are_chosen(rule, text):
    assert text in " ".join(introduction(ask(slot_rule=rule)))


ALONE = replace(SMALL, plan=ALONE_PLAN)


def test_one_pool_has_its_gpus_and_its_price():
    assert one_pool(ALONE) == "One pool with max_num_seqs 16: 320 GPUs, $64,000 a year."


def test_one_pool_without_a_price_has_its_gpus_alone():
    free = replace(ALONE, plan=replace(ALONE_PLAN, price_per_gpu_h=0.0))
    assert one_pool(free) == "One pool with max_num_seqs 16: 320 GPUs."
    assert "-" in rows(table("Fleets", replace(SMALL, by_default=free.plan)))[0][6]


def test_what_the_kv_cache_holds_of_the_default_is_said_so():
    assert rows(table("Fleets"))[0][1] == "252 (KV cache)"


def test_one_pool_that_fails_says_so():
    failing = replace(ALONE_PLAN, pools=(replace(ALONE_PLAN.pools[0], meets=False),))
    assert one_pool(replace(SMALL, plan=failing)).endswith("It misses the objectives at any size.")


def test_a_study_has_a_table_for_each_part():
    titles = [each.title for each in tables(STUDY)]
    assert titles == [
        "Pools",
        "Fleets",
        "Two pools, by threshold",
        "If the share of short requests shifts",
        "With other estimators",
        "If the capacity were 10 % less or more",
    ]


def test_one_pool_alone_has_no_thresholds_shifts_and_estimators():
    low = replace(SMALL, capacity=())
    assert [each.title for each in tables(low)] == ["Pools", "Fleets"]


def test_a_fleet_near_its_capacity_is_shown_with_less_and_with_more():
    found = rows(table("If the capacity were 10 % less or more"))
    assert [row[0].rpartition(", ")[2] for row in found[:2]] == ["-10%", "+10%"]
    assert found[0][4] == "no"


def test_the_headline_says_what_the_cap_on_the_load_costs():
    fewer = replace(STUDY.plan.pools[0], gpus=STUDY.plan.pools[0].gpus - 8, utilisation=0.91)
    free = replace(STUDY.plan, pools=(fewer, *STUDY.plan.pools[1:]))
    text = headline(replace(STUDY, uncapped=free))
    assert (
        f"The cap of 85% on the load decides: both latency objectives hold with {free.gpus}" in text
    )
    assert "at 91% (--utilisation)" in text
    assert "The cap" not in headline(replace(STUDY, uncapped=STUDY.plan))


LATE = ask(LONG_PROMPTS, 20, objectives=Objectives(ttft_p99_s=0.5))


def test_the_headline_says_what_the_objective_of_the_ttft_costs():
    assert headline(examine(LATE)).endswith(
        "The P99 TTFT objective of 500 ms decides, at a load of 14%: with --slo-long-ttft-ms 850 "
        "all objectives hold with 8 GPUs."
    )
    assert "The P99 TTFT objective" not in headline(STUDY)


def test_the_looser_objective_that_the_headline_names_needs_so_many_gpus():
    looser = replace(LATE, long_objectives=Objectives(ttft_p99_s=0.85))
    assert examine(looser).plan.gpus == 8


def test_the_headline_says_where_the_split_is_that_the_ttft_sizes():
    assert headline(examine(LATE, thresholds=(4096,))).endswith(
        "at a load of 1%: with --slo-long-ttft-ms 1500 all objectives hold with 16 GPUs, split at "
        "4096."
    )


@pytest.mark.parametrize(
    ("late_s", "ms"), [(0.0004, 1), (0.0095, 10), (0.0851, 86), (0.851, 860), (3.73, 3800)]
)
def test_a_looser_objective_is_rounded_up_to_two_digits(late_s, ms):
    study = examine(LATE)
    pool = replace(study.looser.pools[0], ttft_p99_s=late_s)
    text = headline(replace(study, looser=replace(study.looser, pools=(pool,))))
    assert f"--slo-long-ttft-ms {ms} all" in text


def test_the_pools_begin_with_the_fleet_that_is_not_split():
    assert [row[0] for row in rows(table("Pools"))] == ["one pool", "short", "long"]


def test_a_pool_has_the_figures_of_its_plan():
    short = STUDY.split.pools[0]
    row = rows(table("Pools"))[1]
    assert row[1:4] == (f"{short.max_model_len}", f"{short.max_num_seqs}", f"{short.sent:.2%}")
    assert row[5:7] == (f"{short.instances}", f"{short.gpus}")
    assert row[-1] == "yes"


def test_the_papers_rival_is_the_last_of_the_fleets_and_says_so():
    assert [row[0] for row in rows(table("Fleets"))] == [
        "1, vLLM's default (256)",
        "1, by actual lengths",
        "2",
        "1, the papers' KV / window",
    ]


def test_one_pool_has_no_threshold_and_no_saving():
    first = rows(table("Fleets"))[0]
    assert (first[2], first[7]) == ("-", "-")


def test_the_curve_is_thinned_to_a_dozen_rows():
    assert len(STUDY.curve) > 12
    assert 6 <= len(rows(table("Two pools, by threshold"))) <= 12


def test_a_change_that_no_fleet_meets_needs_no_number_of_gpus():
    failing = replace(STUDY.drift[0].resized.pools[0], meets=False)
    change = replace(STUDY.drift[0], resized=replace(STUDY.drift[0].resized, pools=(failing,)))
    study = replace(STUDY, drift=(change,))
    assert rows(table("If the share of short requests shifts", study))[0][-1] == "none"


def test_notes_are_sentences_before_the_tables():
    text = printed(STUDY, "f: only totals")
    assert text.index("Note: f: only totals.") < text.index("Pools")


def test_the_recommendation_is_the_first_line():
    assert " ".join(printed(STUDY).split()).startswith(headline(STUDY))
    assert printed(SMALL).startswith(one_pool(SMALL))
