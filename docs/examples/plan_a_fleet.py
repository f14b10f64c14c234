"""Plan a fleet for a distribution of lengths, and check how it holds when the lengths drift."""

import numpy as np

from extproc.planner import Planner, Question, drift, named_profile, weighted

PROMPT = np.array([300, 1500, 6000, 30_000], dtype=np.int64)
OUTPUT = np.array([150, 300, 500, 1000], dtype=np.int64)
SHARES = np.array([0.50, 0.40, 0.08, 0.02])

question = Question(
    workload=weighted("four kinds", PROMPT, OUTPUT, SHARES),
    rate_per_s=300,
    profile=named_profile("h100-llama70b"),
)
planner = Planner(question)
best = planner.best(max_pools=3)
print(best.verdict)
for pool in best.pools:
    print(f"{pool.name}: {pool.instances} instances of {pool.max_num_seqs} x {pool.max_model_len}")
for change in drift(question, best):
    holds = "holds" if change.held.meets else f"needs {change.resized.gpus} GPUs"
    print(f"{change.name} short requests: {holds}")
