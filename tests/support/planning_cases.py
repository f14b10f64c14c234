"""Workloads and questions for the tests of the planner."""

from dataclasses import replace

from extproc.planner.sizing.estimators import PERFECT
from extproc.planner.sizing.question import Question
from extproc.planner.traffic.lengths import Workload, from_cdf
from extproc.planner.traffic.published import AZURE_2023, LMSYS
from extproc.simulator.engine.profiles import NAMED

A100 = NAMED["a100-llama70b"]
LMSYS_LENGTHS = from_cdf("LMSYS", LMSYS)
AZURE_LENGTHS = from_cdf("Azure", AZURE_2023)


def ask(workload: Workload = LMSYS_LENGTHS, rate_per_s: float = 200.0, **changes) -> Question:
    question = Question(workload=workload, rate_per_s=rate_per_s, profile=A100, estimator=PERFECT)
    return replace(question, **changes)
