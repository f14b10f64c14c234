"""Simulations on the workers of a Dask cluster: the same bytes as in one process."""

import pytest

from extproc.cli import main
from extproc.planner.proof import tails
from tests.support.paths import ROOT

distributed = pytest.importorskip("distributed", reason="--cluster needs distributed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

EXAMPLES = ROOT / "docs" / "examples"
LENGTHS = str(EXAMPLES / "azure-2023.csv")
SIMULATE = ("simulate", LENGTHS, "--rate", "40", "--requests", "500", "--seeds", "2", "--compare")
PLAN = (
    *("plan", LENGTHS, str(EXAMPLES / "long-prompts.csv"), "--weight", "0.9", "--weight", "0.1"),
    *("--rate", "4", "--window", "131072", "--slo-ttft-ms", "4000", "--slo-long-ttft-ms", "60000"),
    *("--slo-tpot-ms", "900", "--tails", "--requests", "200"),
)


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as local:
        yield local.scheduler_address


@pytest.mark.parametrize("words", [SIMULATE, PLAN], ids=["simulate", "plan"])
def test_the_results_are_the_same_bytes_wherever_they_are_computed(
    words, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(tails, "SHARES", (0.05,))
    written = []
    for where in (("--jobs", "1"), ("--jobs", "2"), ("--cluster", cluster)):
        file = tmp_path / "out.json"
        assert main([*words, *where, "--json", str(file)]) in {0, 1}
        written.append(file.read_bytes())
    assert written[0] == written[1] == written[2]
