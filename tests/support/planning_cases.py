"""Workloads and questions for the tests of the planner."""

from dataclasses import replace

import numpy as np

from extproc.planner.sizing.estimators import PERFECT
from extproc.planner.sizing.plans import Plan, PoolPlan
from extproc.planner.sizing.question import Question
from extproc.planner.traffic.lengths import Workload, equally_weighted, from_cdf
from extproc.planner.traffic.published import AZURE_2023, LMSYS
from extproc.simulator.engine.profiles import NAMED

A100 = NAMED["a100-llama70b"]
LMSYS_LENGTHS = from_cdf("LMSYS", LMSYS)
AZURE_LENGTHS = from_cdf("Azure", AZURE_2023)
LONG_PROMPTS = equally_weighted(
    "long prompts", np.array([1000] * 197 + [30_000] * 3), np.array([100] * 200)
)
"""1.5 % of the prompts have 30,000 tokens, whose prefill takes 0.4 s."""

SHORT_PLAN = PoolPlan(
    name="short",
    max_model_len=8192,
    max_num_seqs=128,
    threshold=8192,
    sent=0.8,
    share=0.8,
    mu_per_instance=11.2,
    instances=9,
    gpus=72,
    utilisation=0.8,
    ttft_p99_s=0.2,
    tpot_p99_s=0.03,
    meets=True,
)
LONG_PLAN = replace(
    SHORT_PLAN,
    name="long",
    max_model_len=65_536,
    max_num_seqs=16,
    threshold=65_536,
    sent=0.2,
    share=0.2,
    mu_per_instance=2.8,
    instances=10,
    gpus=80,
)
ALONE_PLAN = Plan(
    pools=(replace(LONG_PLAN, name="all", share=1.0, instances=40, gpus=320),),
    rate_per_s=100,
    price_per_gpu_h=2.0,
    hours_per_year=100.0,
)
SPLIT_PLAN = replace(ALONE_PLAN, pools=(SHORT_PLAN, LONG_PLAN), against=ALONE_PLAN)


def ask(workload: Workload = LMSYS_LENGTHS, rate_per_s: float = 200.0, **changes) -> Question:
    question = Question(workload=workload, rate_per_s=rate_per_s, profile=A100, estimator=PERFECT)
    return replace(question, **changes)
