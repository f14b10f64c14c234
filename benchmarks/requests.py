"""Section requests: what a request costs each process, beside servers that decide nothing.

Each server has a pool of its own and, in each round, an Envoy of its own with the default
configuration. In each round every server gets the same load in turn.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final

import aiohttp
from rich.console import RenderableType

from benchmarks.bodies import KIB, MIB, Body, image_body, text_body
from benchmarks.client import Load, run_load
from benchmarks.forms import FormRow, bare, unchanged
from benchmarks.recorded import recorded_answers
from benchmarks.rig import BenchmarkEnvoy, Null, Rig, Service
from benchmarks.run import Plan, Result, Tools, new_table, ratios, rotated, spread
from extproc.config.settings import Form, Transport
from extproc.progress import Show

NONE: Final = "no ext_proc"
GRPC_NULL: Final = "C++ gRPC null"
RAW_NULL: Final = "raw C null"

_COMPILED: Final = Path(__file__).parents[1] / "build" / "compiled"
SERVED: Final = {
    "grpc": Service(Transport.GRPC),
    "grpc compiled": Service(Transport.GRPC, root=_COMPILED),
    "h2": Service(Transport.H2),
    "h2 compiled": Service(Transport.H2, root=_COMPILED),
}
"""The service on each transport, from its sources and as the image has it."""
_SERVICES: Final = {**SERVED, "ngh2": Service(Transport.H2, "benchmarks.ngh2_serve")}
NULLS: Final = {GRPC_NULL: "grpc_null", RAW_NULL: "raw_null"}
SERVERS: Final = (NONE, *NULLS, *_SERVICES)
_DEFAULT: Final = (NONE, *NULLS, *SERVED)
_DEFAULT_FORM: Final = FormRow("default", Form.AUTO, unchanged)
_BARE: Final = FormRow("bare", Form.AUTO, bare)
_SETTLE_S: Final = 0.3  # the observer's last messages
_WARM_S: Final = 0.3
# A service observes all requests until it has seen for a while that they are many. At 1,000 a
# second this is so after 2 s, at 200 a second almost after 10 s: see stream/sampling.py.
_SETTLED_S: Final = 2.0
_STEADY_SETTLED_S: Final = 10.0
_METHOD: Final = """\
Median [lowest, highest] of {rounds} rounds; x and added are to the C++ gRPC null and to no ext_proc
of the same round. CPU: user and system time of the process, all threads, in us per request.
The nulls repeat the service's answers and are shown every answer; they decide and learn nothing.
Services get each load beforehand for {settled:g} s, or {steady:g} s of a steady one.
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """One server in one round: CPU per request, requests a second, times of the client."""

    server_us: float
    envoy_us: float
    per_s: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class _Case:
    body: Body
    load: Load

    @property
    def name(self) -> str:
        return f"{self.body.name}, {self.load.name}"


_Rounds = dict[str, list[Figures]]
_COSTS: Final = ("CPU server us", "x C++ null", "CPU Envoy us", "x C++ null")
_STEADY_TIMES: Final = ("added P50 ms", "P99 ms", "over C++ null P50 ms", "P99 ms")
_server_us, _envoy_us = attrgetter("server_us"), attrgetter("envoy_us")
_per_s, _p50_us, _p99_us = attrgetter("per_s"), attrgetter("p50_us"), attrgetter("p99_us")


async def measure(plan: Plan, tools: Tools, show: Show) -> Result:
    """Measure all cases."""
    cases, chosen = _cases(plan), plan.servers or _DEFAULT
    found: dict[str, _Rounds] = {case.name: {} for case in cases}
    async with AsyncExitStack() as stack:
        answers = stack.enter_context(recorded_answers())
        session = await stack.enter_async_context(aiohttp.ClientSession())
        rigs = {
            name: await stack.enter_async_context(Rig(session, server, pool=tools.pool))
            for name, server in servers(chosen, tools, answers).items()
        }
        show.begin("requests", plan.rounds * len(cases) * len(rigs))
        for number in range(plan.rounds):
            bench = _Round(session, tools, plan, show)
            await bench.run(rigs, cases, number, found)
    tables = [_table(name, rounds) for name, rounds in found.items()]
    shown = (*tables, *left_out(chosen, tools))
    return Result(
        (*shown, _METHOD.format(rounds=plan.rounds, settled=_SETTLED_S, steady=_STEADY_SETTLED_S)),
        found,
    )


def _cases(plan: Plan) -> Sequence[_Case]:
    few, many, steady = Load(16), Load(64), Load(64, 200.0)
    if plan.quick:
        return [_Case(text_body(KIB), few), _Case(text_body(KIB), steady)]
    wanted = (
        (text_body(KIB), (few, many, steady)),
        (text_body(32 * KIB), (few, many, steady)),
        (text_body(256 * KIB), (few, many, Load(64, 50.0))),
        (text_body(MIB), (few, Load(64, 20.0))),
        (image_body(MIB), (few, Load(64, 20.0))),
    )
    chosen = [each for each in wanted if not plan.bodies or each[0].name in plan.bodies]
    return [_Case(body, load) for body, loads in chosen for load in loads]


def usable_services() -> Mapping[str, Service]:
    """Return those of `SERVED` that this machine can run."""
    return {name: service for name, service in SERVED.items() if name not in _unusable()}


def servers(chosen: Sequence[str], tools: Tools, answers: Path) -> Mapping[str, Service | Null]:
    """Return those of the chosen servers that this machine can run."""
    paths = tools.programs.paths
    nulls = {
        name: Null(paths[program], answers) for name, program in NULLS.items() if program in paths
    }
    # Without filters of ours it does not matter which server stands beside Envoy.
    known = {NONE: Service()} | nulls | _SERVICES
    return {name: known[name] for name in chosen if name in known and name not in _unusable()}


def left_out(chosen: Sequence[str], tools: Tools) -> Sequence[str]:
    """Return a line for each of the chosen servers that this machine cannot run."""
    missing = {name: tools.programs.missing.get(program) for name, program in NULLS.items()}
    reasons = {name: why for name, why in missing.items() if why} | _unusable()
    return [f"{name} is left out: {why}" for name, why in reasons.items() if name in chosen]


def _unusable() -> dict[str, str]:
    found = {"ngh2": "no module ngh2"} if not importlib.util.find_spec("ngh2") else {}
    if not (_COMPILED / "extproc").exists():
        compiled = [name for name, service in SERVED.items() if service.root]
        found |= dict.fromkeys(compiled, "`make compiled` makes it")
    return found


@dataclass(frozen=True, slots=True)
class _Round:
    session: aiohttp.ClientSession
    tools: Tools
    plan: Plan
    show: Show

    async def run(
        self, rigs: Mapping[str, Rig], cases: Sequence[_Case], number: int,
        found: Mapping[str, _Rounds],
    ) -> None:  # fmt: skip
        """Measure each server in each case, all in turn."""
        async with AsyncExitStack() as stack:
            gateways = {
                name: await stack.enter_async_context(
                    rig.gateway(_BARE if name == NONE else _DEFAULT_FORM)
                )
                for name, rig in rigs.items()
            }
            for case in cases:
                for name in rotated(tuple(gateways), number):
                    figures = await self._measure(name, gateways[name], case)
                    found[case.name].setdefault(name, []).append(figures)
                    self.show.advance()

    def _warm_s(self, name: str, load: Load) -> float:
        if name not in _SERVICES or self.plan.quick:
            return _WARM_S
        return _STEADY_SETTLED_S if load.rate else _SETTLED_S

    async def _measure(self, name: str, gateway: BenchmarkEnvoy, case: _Case) -> Figures:
        # A percentile needs more of a steady load.
        client, seconds = self.tools.client, self.plan.seconds * (3 if case.load.rate else 1)
        await run_load(client, gateway.port, case.body, case.load, self._warm_s(name, case.load))
        load = run_load(client, gateway.port, case.body, case.load, seconds)
        sent, spent = await gateway.measure(self.session, load, _SETTLE_S)
        return Figures(
            server_us=spent.service_s * 1e6 / sent.requests,
            envoy_us=spent.envoy_s * 1e6 / sent.requests,
            per_s=sent.requests / sent.seconds,
            p50_us=sent.p50_us,
            p99_us=sent.p99_us,
        )


def _table(name: str, rounds: _Rounds) -> RenderableType:
    steady = "requests/s" in name
    times = _STEADY_TIMES if steady else ("requests/s", "of no ext_proc")
    table = new_table(name, "", (*_COSTS, *times))
    for each in (each for each in SERVERS if each in rounds):
        table.add_row(each, *_costs(each, rounds), *_times(each, rounds, steady=steady))
    return table


def _costs(name: str, rounds: _Rounds) -> Sequence[str]:
    if name == NONE:
        return ("", "", *_cost(name, rounds, _envoy_us))
    return (*_cost(name, rounds, _server_us), *_cost(name, rounds, _envoy_us))


def _cost(name: str, rounds: _Rounds, key: Callable[[Figures], float]) -> tuple[str, str]:
    return spread([key(each) for each in rounds[name]]), _relative(rounds, name, GRPC_NULL, key)


def _times(name: str, rounds: _Rounds, *, steady: bool) -> Sequence[str]:
    if not steady:
        rates = spread([_per_s(each) for each in rounds[name]])
        return rates, _relative(rounds, name, NONE, _per_s)
    return tuple(
        _added(rounds, name, base, key) for base in (NONE, GRPC_NULL) for key in (_p50_us, _p99_us)
    )


def _relative(rounds: _Rounds, name: str, base: str, key: Callable[[Figures], float]) -> str:
    if base not in rounds:
        return "-"
    own, others = ([key(each) for each in rounds[which]] for which in (name, base))
    return spread(ratios(own, others), ".2f")


def _added(rounds: _Rounds, name: str, base: str, key: Callable[[Figures], float]) -> str:
    if name == NONE == base:
        return f"({spread([key(each) / 1000 for each in rounds[name]], '.2f')})"
    if base not in rounds or name in {NONE, base}:
        return ""
    pairs = zip(rounds[name], rounds[base], strict=True)
    return spread([(key(each) - key(other)) / 1000 for each, other in pairs], "+.2f")
