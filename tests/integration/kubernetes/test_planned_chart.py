"""What `dualpool plan --out` writes, as values of the chart."""

import yaml

from extproc.planner.proof.tails import shape_of
from extproc.planner.report.running import running_files
from extproc.planner.sizing.search import Planner
from tests.support.helm import rendered
from tests.support.planning_cases import ask


def test_the_chart_takes_the_pools_of_a_plan(tmp_path):
    question = ask()
    pools = Planner(question).at((8192,)).pools
    shapes = [shape_of(pool.name, pool, question) for pool in pools]
    values = tmp_path / "values.yaml"
    values.write_text(running_files(shapes, [1, 1])["values.yaml"])
    data = (each.get("data", {}) for each in rendered("--values", values))
    (text,) = (each["settings.yaml"] for each in data if "settings.yaml" in each)
    settings = yaml.safe_load(text)
    assert [pool["max_model_len"] for pool in settings["pools"]] == [8192, 65_536]
    assert settings["listen"]["tls_cert"]
