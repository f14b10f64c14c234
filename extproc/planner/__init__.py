"""Plan a fleet: how many instances of each pool a workload needs, by formula and by simulation.

A plan for given lengths:

    from extproc.planner import Question, named_profile, plan, weighted

    lengths = weighted("mine", prompt, output, counts)  # int64 arrays of tokens
    question = Question(workload=lengths, rate_per_s=200, profile=named_profile("a100-llama70b"))
    print(plan(question).verdict)

`Planner` answers more about one question: given thresholds, more pools, the curve over thresholds.
`examine` gathers all of it. `simulate` runs a `FleetSpec` on the arrivals that `arrive` makes from
a `Trace`, under a rule from `make_rule`; `summarise` computes the figures. Nothing here reads a
file or a clock: `extproc.planner_commands` reads files and live services.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.planner.public import *  # noqa: F403


def __getattr__(name: str) -> object:
    # Not imported with the package: a plan by formula needs none of the simulation, which takes as
    # long to import as the plan takes.
    return getattr(importlib.import_module("extproc.planner.public"), name)
