"""What the report says of tails: the recommendation first, then the tables."""

import json
from dataclasses import replace

import msgspec
import pytest

from extproc.planner.proof.tails import ClassFigures, CurvePoint, Shape, TailRow, Tails
from extproc.planner.report.tails import advise, split_wins_from, tail_tables, tails_json
from extproc.planner.sizing.question import Objectives
from tests.support.planning_cases import A100

FAST, SLOW = ClassFigures(0.1, 0.2, 0.01, 0.02), ClassFigures(0.5, 9.0, 0.05, float("nan"))
SHAPE = Shape(
    name="all",
    profile=replace(A100, gpus=1),
    max_model_len=65_536,
    max_num_seqs=256,
    threshold=65_536,
    max_num_batched_tokens=2048,
)
ONE = TailRow("one pool", (SHAPE,), (4,), SLOW, SLOW)
CHUNKED = TailRow(
    "one pool, chunks of 512",
    (replace(SHAPE, long_prefill_token_threshold=512),),
    (4,),
    ClassFigures(0.1, 0.6, 0.01, 0.05),
    SLOW,
)
SPLIT = TailRow("split", (SHAPE, SHAPE), (1, 2), FAST, SLOW)
TAILS = Tails(
    threshold=8192,
    requests=1000,
    share=0.05,
    goals=(Objectives(), Objectives(ttft_p99_s=30)),
    equal=(ONE, CHUNKED, SPLIT),
    least=(ONE, SPLIT),
    curve=(
        CurvePoint(0.01, 3, 2, 3),
        CurvePoint(0.05, None, 4, 3),
        CurvePoint(0.1, None, None, 5),
    ),
)


def test_a_split_that_takes_fewer_gpus_is_recommended():
    assert advise(TAILS).startswith(
        "Split at 8192, with --max-num-seqs 256 and 256: 3 GPUs (1 + 2 instances) hold the "
        "objectives of each class; one pool takes 4. With 4 GPUs for each, P99 TTFT and TPOT of "
        "short requests, and P99 TTFT of long ones: "
        "one pool at vLLM's defaults: 9.00 s and nan ms, 9.00 s; one pool with "
        "--long-prefill-token-threshold 512: 600 ms and 50 ms, 9.00 s; a split: 200 ms and 20 ms, "
    )


def test_a_split_alone_may_hold_them():
    assert "one pool does not" in advise(replace(TAILS, least=(SPLIT,)))


def test_one_pool_that_takes_fewer_is_recommended_and_says_what_would_change_that():
    text = advise(replace(TAILS, least=(replace(ONE, instances=(3,)), SPLIT)))
    assert text.startswith(
        "Do not split: max_num_seqs 256 (vLLM's default) will do. One pool of 3 GPUs holds the "
        "objectives of each class, with P99 TTFT and TPOT of short requests of 9.00 s and nan ms, "
        "and P99 TTFT of long ones of 9.00 s; a split takes 3."
    )
    assert "a split takes 3. A split wins from 5.0% of long requests on." in text


def test_one_pool_that_takes_fewer_with_chunks_names_that_setting():
    text = advise(replace(TAILS, least=(ONE, replace(CHUNKED, instances=(2,)), SPLIT)))
    assert text.startswith("Do not split: set --long-prefill-token-threshold 512. One pool of 2")


def test_one_pool_alone_may_hold_them():
    text = advise(replace(TAILS, least=(ONE,), curve=()))
    assert "no split does. With" in text


def test_no_fleet_may_hold_them():
    text = advise(replace(TAILS, least=()))
    assert text.startswith(
        "No fleet tried holds the objectives of each class: P99 TTFT and TPOT of "
    )
    assert "2.00 s and 80 ms for short requests, 30.00 s and 80 ms for long ones. Set" in text


@pytest.mark.parametrize(
    ("splits", "share"), [((3, 3, 5), 0.05), ((1, 3, 5), 0.01), ((1, 3, None), None)]
)
def test_a_split_wins_from_the_share_on_from_which_it_always_does(splits, share):
    points = zip(TAILS.curve, splits, strict=True)
    curve = tuple(replace(point, split=split) for point, split in points)
    assert split_wins_from(replace(TAILS, curve=curve)) == share


def test_there_is_a_table_for_equal_gpus_least_gpus_and_the_shares():
    tables = list(tail_tables(TAILS))
    assert [table.row_count for table in tables] == [3, 2, 3]
    assert list(tables[2].columns[2].cells) == ["2", "4", "over 4x"]
    assert list(tables[0].columns[-1].cells) == ["-", "-", "-"]


def test_without_a_curve_there_is_no_table_of_it():
    assert len(list(tail_tables(replace(TAILS, curve=())))) == 2


def test_without_a_fleet_that_holds_the_objectives_there_is_no_table_of_them():
    assert len(list(tail_tables(replace(TAILS, least=())))) == 2


def test_json_has_the_advice_and_the_fleets():
    document = json.loads(msgspec.json.encode(tails_json(TAILS)))
    assert document["advice"] == advise(TAILS)
    assert document["equal"][2]["instances"] == [1, 2]
    assert document["equal"][1]["long_prefill_token_threshold"] == [512]
    last = {"share": 0.1, "one_pool": None, "chunked": None, "split": 5}
    assert document["curve"][2] == last
