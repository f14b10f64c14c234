"""The names of `extproc.planner` for use as a library."""

from extproc.planner.simulation.fleet import FleetSpec, PoolSpec
from extproc.planner.simulation.results import Result, summarise
from extproc.planner.simulation.rules import Rule, RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from extproc.planner.sizing.closed_form import ClosedForm, Rates, ideal_saving, split_fleet
from extproc.planner.sizing.estimators import ESTIMATORS, EstimatorErrors, RoutingError, measured
from extproc.planner.sizing.plans import Plan, PoolPlan
from extproc.planner.sizing.question import Objectives, PlanError, Question, SlotRule
from extproc.planner.sizing.queueing import (
    Queue,
    erlang_b,
    erlang_c,
    mean_wait_s,
    wait_percentile_s,
)
from extproc.planner.sizing.search import Planner, plan
from extproc.planner.sizing.sensitivity import Change, drift, misjudged
from extproc.planner.sizing.study import Study, examine
from extproc.planner.traffic.arrivals import arrive, draw_limits
from extproc.planner.traffic.lengths import (
    Arrival,
    InputError,
    Length,
    Trace,
    Workload,
    equally_weighted,
    from_cdf,
    merged,
    poisson,
    replay,
    weighted,
)
from extproc.simulator.engine import EngineConfig, Profile
from extproc.simulator.engine.profiles import (
    NAMED,
    Accelerator,
    Build,
    InstanceProfile,
    ModelShape,
    ProfileError,
    from_first_principles,
    named_profile,
    read_profile,
    write_profile,
)

__all__ = [
    "ESTIMATORS",
    "NAMED",
    "Accelerator",
    "Arrival",
    "Build",
    "Change",
    "ClosedForm",
    "Conduct",
    "EngineConfig",
    "EstimatorErrors",
    "FleetSpec",
    "InputError",
    "InstanceProfile",
    "Length",
    "ModelShape",
    "Objectives",
    "Plan",
    "PlanError",
    "Planner",
    "PoolPlan",
    "PoolSpec",
    "Profile",
    "ProfileError",
    "Question",
    "Queue",
    "Rates",
    "Result",
    "RoutingError",
    "Rule",
    "RuleName",
    "SlotRule",
    "Study",
    "Trace",
    "Workload",
    "arrive",
    "draw_limits",
    "drift",
    "equally_weighted",
    "erlang_b",
    "erlang_c",
    "examine",
    "from_cdf",
    "from_first_principles",
    "ideal_saving",
    "make_rule",
    "mean_wait_s",
    "measured",
    "merged",
    "misjudged",
    "named_profile",
    "plan",
    "poisson",
    "read_profile",
    "replay",
    "simulate",
    "split_fleet",
    "summarise",
    "wait_percentile_s",
    "weighted",
    "write_profile",
]
