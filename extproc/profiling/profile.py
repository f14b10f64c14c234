"""`dualpool profile URL`: measures a running vLLM, fits a profile, prints and writes it."""

import asyncio
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from extproc.config.addresses import http_url
from extproc.output import STDOUT, report_console, write_json
from extproc.profiling.fitting import (
    DOUBTFUL,
    Decode,
    FirstToken,
    Fit,
    FitError,
    Measurement,
    fit,
)
from extproc.profiling.measuring import Measured, measure
from extproc.profiling.vllm import Facts, connect, new_session
from extproc.progress import showing
from extproc.simulator.engine.instance import GRAPH_SEQUENCES
from extproc.simulator.engine.profiles import InstanceProfile, write_profile

_WIDTH: Final = 100
_BELOW_1: Final = "--most: {}, --max-num-batched-tokens: {}, --gpus: {}; all must be at least 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """Options of `dualpool profile`; a server's API does not report those after `most`.

    most: largest number of concurrent sequences. price_per_gpu_h: USD per GPU and hour.
    async_scheduling: vLLM's default on GPUs; it has none on CPUs.
    """

    url: str
    out: Path | None = None
    most: int = 1024
    max_num_batched_tokens: int = 2048
    gpus: int = 1
    price_per_gpu_h: float = 0.0
    async_scheduling: bool = True


@dataclass(frozen=True, slots=True)
class Profiled:
    """A measured server: what it reports, the measurements, and the fit."""

    facts: Facts
    measured: Measured
    fit: Fit

    def instance(
        self, gpus: int = 1, price_per_gpu_h: float = 0.0, *, async_scheduling: bool = True
    ) -> InstanceProfile:
        """Return the profile for the planner and the simulator."""
        decodes = [m for m in self.measured.measurements if isinstance(m, Decode)]
        return InstanceProfile(
            name=self.facts.model,
            pace=self.fit.profile,
            kv_tokens=self.facts.kv_tokens,
            block_size=self.facts.block_size,
            gpus=gpus,
            price_per_gpu_h=price_per_gpu_h,
            overhead_s=self.fit.overhead_ms / 1e3,
            async_scheduling=async_scheduling,
            max_num_batched_tokens=self.fit.profile.chunk_tokens,
            max_num_seqs=self.measured.max_num_seqs,
            measured_sequences=max((decode.sequences for decode in decodes), default=0),
            measured_kv_tokens=round(max((decode.kv_tokens for decode in decodes), default=0)),
            source="measured by dualpool profile; half of the times are fitted within"
            f" {self.fit.median_off:.1%}, all within {self.fit.most_off:.1%}",
        )


def run_profile(options: ProfileOptions) -> int:
    """Run the command; return 0, 1 if no profile could be fitted, or 2 for an invalid option.

    Raises VllmError if nothing could be measured.
    """
    try:
        url = http_url(options.url)
    except ValueError as error:
        return _fail(f"{options.url}: {error}; allowed: for example 127.0.0.1:8000", 2)
    if min(options.most, options.max_num_batched_tokens, options.gpus) < 1:
        numbers = (options.most, options.max_num_batched_tokens, options.gpus)
        return _fail(_BELOW_1.format(*numbers), 2)
    console = report_console(_WIDTH)
    facts, measured = asyncio.run(measure_server(replace(options, url=url)))
    for reason in measured.missing:
        _say(f"not measured: {reason}")
    try:
        profiled = Profiled(facts, measured, _fitted(measured, options))
    except FitError as error:
        print_measured(console, facts, measured)
        return _fail(str(error) + ("" if options.out is None else f"; {options.out} not written"))
    if options.out != STDOUT:
        print_profile(console, profiled)
    if options.out:
        instance = profiled.instance(
            options.gpus, options.price_per_gpu_h, async_scheduling=options.async_scheduling
        )
        points = [asdict(measurement) for measurement in measured.measurements]
        write_json(options.out, write_profile(instance, points))
    return 0


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(message, markup=False, highlight=False)


def _fail(message: str, code: int = 1) -> int:
    _say(f"dualpool: {message}")
    return code


async def profile(options: ProfileOptions) -> Profiled:
    """Measure the server and fit a profile to it. Raises VllmError and FitError."""
    facts, measured = await measure_server(options)
    return Profiled(facts, measured, _fitted(measured, options))


async def measure_server(options: ProfileOptions) -> tuple[Facts, Measured]:
    """Return what the server reports and what was measured. Raises VllmError."""
    async with new_session() as session:
        vllm = await connect(session, options.url)
        with showing(Console(stderr=True)) as show:
            return vllm.facts, await measure(vllm, options.most, show)


def _fitted(measured: Measured, options: ProfileOptions) -> Fit:
    return fit(measured.measurements, options.max_num_batched_tokens)


def print_measured(console: Console, facts: Facts, measured: Measured) -> None:
    """Print every measurement, for when there is no fit."""
    table = _table("Measured, in ms", ("measured",))
    for measurement in measured.measurements:
        table.add_row(_name(measurement), f"{measurement.measured_ms:.2f}")
    console.print(table)
    _print_facts(console, facts, measured)


def print_profile(console: Console, profiled: Profiled) -> None:
    """Print every measurement with its fitted time, and the terms of the fit."""
    console.print(_residuals(profiled), _terms(profiled.fit), sep="\n")
    _print_facts(console, profiled.facts, profiled.measured)
    for caution in cautions(profiled):
        console.print(caution, highlight=False, markup=False)


def cautions(profiled: Profiled) -> tuple[str, ...]:
    """Return how far the fit can be trusted, in whole sentences."""
    fitted, pace = profiled.fit, profiled.fit.profile
    form = "prefill computes while weights are read" if pace.overlap else "all terms add up"
    found = [
        f"Half of the times are fitted within {fitted.median_off:.1%}, all within"
        f" {fitted.most_off:.1%}; {form}."
    ]
    if fitted.most_off > DOUBTFUL:
        found.append(
            f"Times that are off by more than {DOUBTFUL:.0%} are not described: see above."
        )
    decodes = [m for m in profiled.measured.measurements if isinstance(m, Decode)]
    most = max(decode.sequences for decode in decodes)
    if most <= GRAPH_SEQUENCES:
        found.append(
            f"Not measured above {most} sequences. vLLM captures CUDA graphs up to"
            f" {GRAPH_SEQUENCES}; above, an iteration is taken to last {pace.eager_ms:.1f} ms more."
        )
    return tuple(found)


def _print_facts(console: Console, facts: Facts, measured: Measured) -> None:
    console.print(
        f"{facts.model}: window {facts.max_model_len}, KV cache of {facts.num_blocks} blocks of"
        f" {facts.block_size} tokens, {measured.max_num_seqs} sequences ran at once.",
        highlight=False,
    )


def _residuals(profiled: Profiled) -> Table:
    table = _table("Measured and fitted, in ms", ("measured", "fitted", "off by"))
    rows = zip(profiled.measured.measurements, profiled.fit.fitted_ms, strict=True)
    for measurement, fitted_ms in rows:
        measured_ms = measurement.measured_ms
        off = f"{fitted_ms / measured_ms - 1:+.1%}"
        table.add_row(_name(measurement), f"{measured_ms:.2f}", f"{fitted_ms:.2f}", off)
    return table


def _name(measurement: Measurement) -> str:
    match measurement:
        case FirstToken(prompt_tokens=tokens):
            return f"first token, {tokens} prompt tokens"
        case Decode(sequences=n, kv_tokens=kv):
            return f"iteration, {n} sequences, {kv:.0f} KV tokens"


def _terms(fitted: Fit) -> Table:
    table = _table("Time of an iteration", ("ms",))
    pace = fitted.profile
    for name, value in (
        ("weights", pace.weights_ms),
        ("per sequence", pace.sequence_ms),
        ("per 1000 prefill tokens", 1e3 * pace.prefill_token_ms),
        ("per 1,000,000 pairs of prefill tokens", 1e6 * pace.prefill_pair_ms),
        ("per 1000 KV tokens read by decodes", 1e3 * pace.kv_token_ms),
        ("launch of a prefill, at least", pace.launch_ms),
        (f"more above {pace.graph_sequences} sequences", pace.eager_ms),
        ("outside the engine, per request", fitted.overhead_ms),
    ):
        table.add_row(name, f"{value:.3f}")
    return table


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, title_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table
