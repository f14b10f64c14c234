"""What predicts completion tokens, compared."""

import json
import random

import pytest

from extproc.cli import main
from extproc.evaluation.lengths import DrawnLength
from extproc.evaluation.options import WARM_UP, EvaluateOptions
from extproc.evaluation.predicted import LEVEL, PLAIN, Request, over_routed, predict, run_predicted
from extproc.progress import Show
from tests.unit.evaluation.test_lengths import AZURE


class Quiet(Show):
    def __init__(self):
        pass

    def begin(self, text, total):
        pass

    def advance(self):
        pass


@pytest.fixture(scope="module")
def found():
    options = EvaluateOptions(requests=4000)
    return {
        (each.traffic.partition(", ")[2], each.predictor): each
        for each in run_predicted(options, (2048,), 0.001, Quiet())
    }


def test_those_of_the_lowest_risk_are_sent_short_until_the_misroutes_are_used_up():
    risks = [(0.1, True), (0.2, False), (0.3, True), (0.4, False), (0.5, True)]
    assert over_routed(risks, 0) == 2
    assert over_routed(risks, 1) == 1
    assert over_routed(risks, 2) == 0


def test_of_requests_with_one_risk_a_part_is_sent_short():
    assert over_routed([(0.2, True), (0.2, False), (0.2, False), (0.2, True)], 1) == 1


def test_nothing_of_a_higher_risk_is_sent_short_after_a_part():
    assert over_routed([(0.1, False), (0.1, False), (0.2, True)], 1) == 1


def test_a_quantile_is_exceeded_by_the_share_that_it_states(found):
    learnt = [each for (_, name), each in found.items() if name != "oracle"]
    assert all(abs(each.exceeded - LEVEL) < 0.02 for each in learnt)


def test_the_oracle_sends_nothing_long_in_vain(found):
    assert {each.over_routed[2048] for (_, name), each in found.items() if name == "oracle"} == {0}


def test_a_stated_switch_tells_requests_that_think_from_others(found):
    said, unsaid = "20% think and say so", "20% think and do not say so"
    ours = found[said, "kinds and sizes"].over_routed[2048]
    assert ours < found[said, "sizes"].over_routed[2048] / 2
    assert found[unsaid, "kinds and sizes"].over_routed == found[unsaid, "sizes"].over_routed


def test_the_first_requests_are_not_counted(found):
    assert {each.requests for each in found.values()} == {4000 - WARM_UP}


def test_a_size_of_prompt_that_tells_the_output_is_used():
    rng = random.Random(0)
    lengths = [rng.choice([DrawnLength(100, 1900), DrawnLength(1500, 50)]) for _ in range(4000)]
    requests = [Request(PLAIN, length) for length in lengths]
    tried = {each.predictor: each for each in predict("", requests, (2048,), 0.001)}
    assert tried["sizes"].reserved < tried["category"].reserved


def test_each_file_of_lengths_has_rows_of_its_own(tmp_path, capsys):
    files = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for file in files:
        file.write_text(AZURE)
    lengths = [argument for file in files for argument in ("--lengths", str(file))]
    options = ("--requests", "600", "--threshold", "500", "--json", "-")
    assert main(["evaluate", "--outputs", *lengths, *options]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["traffic"].partition(",")[0] for row in rows} == {"one", "two"}
    assert {tuple(row["over_routed"]) for row in rows} == {("500",)}


def test_each_traffic_has_a_table_with_a_row_for_each_predictor(capsys):
    assert main(["evaluate", "--outputs", "--requests", "600"]) == 0
    _, *tables = capsys.readouterr().out.split("Azure 2023 with a longer tail")
    assert [table.count("kinds and sizes") for table in tables] == [1, 1, 1]


def test_the_tables_fit_a_terminal_of_80_columns(capsys):
    assert main(["evaluate", "--outputs", "--requests", "600"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
