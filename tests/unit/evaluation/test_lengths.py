"""How long prompts and outputs are drawn."""

import gzip
import random

import pytest

from extproc.config.errors import UserError
from extproc.evaluation.lengths import draw_azure, read_lengths, stated_limit
from extproc.evaluation.options import THRESHOLDS, EvaluationError

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374,44\n"
BURST = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
"""


def test_every_threshold_has_neighbours():
    rng = random.Random(1)
    totals = [sum(draw_azure(rng)) for _ in range(5000)]
    for threshold in THRESHOLDS:
        assert sum(abs(total / threshold - 1) < 0.1 for total in totals) >= 50


def test_prompt_and_output_have_at_least_a_token():
    rng = random.Random(2)
    assert min(min(draw_azure(rng)) for _ in range(2000)) >= 1


def test_without_a_trace_lengths_are_azures():
    assert read_lengths(()) is draw_azure


def test_files_are_of_any_format_of_the_planner_and_each_is_drawn_from(tmp_path):
    azure, mooncake = tmp_path / "azure.csv", tmp_path / "mooncake.jsonl"
    burst = tmp_path / "burst.csv"
    azure.write_text(AZURE)
    mooncake.write_text('{"timestamp": 0, "input_length": 6758, "output_length": 500}\n')
    burst.write_text(BURST)
    draw, rng = read_lengths((azure, mooncake, burst)), random.Random(3)
    assert {draw(rng) for _ in range(50)} == {(374, 44), (6758, 500), (472, 18)}


def test_a_distribution_of_totals_is_drawn_from(tmp_path):
    file = tmp_path / "cdf.csv"
    file.write_text("tokens,share\n1000,0.5\n2000,1.0\n")
    draw, rng = read_lengths((file,)), random.Random(4)
    totals = [sum(draw(rng)) for _ in range(500)]
    assert max(totals) <= 2000
    assert 200 < sum(total <= 1000 for total in totals) < 300


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "ContextTokens,GeneratedTokens\nx,2\n", ""])
def test_a_file_that_is_no_trace_is_an_error(tmp_path, text):
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=r"trace.csv"):
        read_lengths((file,))


def test_a_file_may_be_compressed(tmp_path):
    file = tmp_path / "azure.csv.gz"
    file.write_bytes(gzip.compress(AZURE.encode()))
    assert read_lengths((file,))(random.Random(5)) == (374, 44)


def test_what_is_assumed_of_a_file_is_noted(tmp_path, capsys):
    file = tmp_path / "cdf.csv"
    file.write_text("tokens,share\n1000,1.0\n")
    read_lengths((file,))
    told = f"note: {file}: only totals; 20% of each is taken for output\n"
    assert capsys.readouterr().err == told


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(EvaluationError, match=r"--lengths: .*trace.csv: No such file"):
        read_lengths((tmp_path / "trace.csv",))


def test_the_stated_limit_is_the_next_step_of_the_ladder():
    assert [stated_limit(n) for n in (1, 128, 129, 9000)] == [128, 128, 256, 9000]
