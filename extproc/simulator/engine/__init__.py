"""An event model of vLLM's scheduler: which sequence runs when, at an accelerator's pace.

`engine` holds the schedule; `sequence` what it schedules, and the events that it reports;
`instance` the settings and the pace of one server; `prefix` its prefix cache; `profiles` the named
accelerators and models, and how a pace follows from their data sheets.
"""

from extproc.simulator.engine.engine import Engine
from extproc.simulator.engine.instance import A100_80GB, EngineConfig, Profile
from extproc.simulator.engine.sequence import Event, EventKind, NeverFitsError, Sequence

__all__ = [
    "A100_80GB",
    "Engine",
    "EngineConfig",
    "Event",
    "EventKind",
    "NeverFitsError",
    "Profile",
    "Sequence",
]
