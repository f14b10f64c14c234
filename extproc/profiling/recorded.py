"""`make versus-recorded`: compares the simulator with recorded runs of real vLLM.

Invariant: each run is simulated from a profile that is fitted to the points measured on the same
engine before it, as `dualpool profile` measures them; nothing is tuned to a run. A recording is a
folder with the arrivals (traces.json) and, in a folder for each engine, its points and the first
and last token times of its runs (results.json).
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from extproc.output import report_console
from extproc.planner.simulation.fleet import PoolSpec
from extproc.planner.traffic.lengths import Trace
from extproc.profiling.fitting import Decode, FirstToken, Fit, Measurement, fit
from extproc.profiling.replaying import (
    InstanceTimes,
    ReplayFigures,
    figures_of,
    pick,
    simulated,
    times_of,
)
from extproc.simulator.engine.instance import GRAPH_SEQUENCES, EngineConfig, Profile
from extproc.simulator.engine.profiles import H100_SOURCE, InstanceProfile, write_profile

_WIDTH: Final = 120
_WINDOW: Final = 65_536
_THRESHOLD: Final = 8192  # of the split in the recorded mix
_TRACES: Final = {
    "burst": "azure_burst",
    "kvcut": "azure_burst",
    "rate7": "azure_7",
    "rate15": "azure_15",
    "mix": "mix_burst",
}
_SPEEDS: Final = (0.9, 1.0, 1.1)
_PRICE: Final = 4.02  # USD per GPU and hour, as of the named H100 profiles


class _DecodePoint(msgspec.Struct):
    n: int
    kv: float
    ms: float


class _PrefillPoint(msgspec.Struct):
    p: int
    ms: float


class _Run(msgspec.Struct):
    requests: int
    cut: bool
    seqs: int
    blocks: int
    batch: int
    preemptions: int
    first_s: list[float]
    last_s: list[float]


class _Results(msgspec.Struct):
    block_size: int
    num_gpu_blocks: int
    decode: list[_DecodePoint]
    prefill: list[_PrefillPoint]
    runs: dict[str, _Run]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedRun:
    """A complete run on one instance: its engine, its arrivals, and what vLLM measured."""

    name: str
    engine: EngineConfig
    trace: Trace
    real: InstanceTimes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """An engine: the points measured on it, their fit, and its complete runs by name."""

    name: str
    points: tuple[Measurement, ...]
    fit: Fit
    kv_tokens: int
    runs: Mapping[str, RecordedRun]

    @property
    def assumed(self) -> str:
        """A mark for the term above 512 sequences if no point shows it."""
        decodes = [point.sequences for point in self.points if isinstance(point, Decode)]
        return "" if max(decodes) > GRAPH_SEQUENCES else " (assumed)"

    def simulate(self, run: RecordedRun, speed: float = 1.0, seqs: int = 0) -> InstanceTimes:
        """Simulate a run, at another speed or max_num_seqs if given."""
        engine = replace(run.engine, max_num_seqs=seqs or run.engine.max_num_seqs)
        pool = PoolSpec(
            name=run.name,
            engine=engine,
            profile=replace(self.fit.profile, speed=speed),
            instances=1,
            threshold=engine.max_model_len,
            overhead_s=self.fit.overhead_ms / 1e3,
        )
        return simulated(run.trace, pool)


def read_recordings(folder: Path) -> list[Recording]:
    """Read every engine of a recording, in the order of their names.

    Raises OSError, msgspec.DecodeError and FitError.
    """
    arrivals = msgspec.json.decode(
        (folder / "traces.json").read_bytes(), type=dict[str, list[tuple[float, int, int]]]
    )
    return [_read(file, arrivals) for file in sorted(folder.glob("*/results.json"))]


def _read(file: Path, arrivals: Mapping[str, Sequence[tuple[float, int, int]]]) -> Recording:
    results = msgspec.json.decode(file.read_bytes(), type=_Results)
    points = _points(results)
    batch = next(iter(results.runs.values())).batch
    runs = {
        name: _run(name, run, _trace(name, run.requests, arrivals))
        for name, run in results.runs.items()
        if name.split("_")[0] in _TRACES and not run.cut
    }
    return Recording(
        name=file.parent.name,
        points=points,
        fit=fit(points, batch),
        kv_tokens=(results.num_gpu_blocks - 1) * results.block_size,
        runs=runs,
    )


def _points(results: _Results) -> tuple[Measurement, ...]:
    prompts = sorted({point.p for point in results.prefill})
    firsts = [
        FirstToken(prompt_tokens=p, measured_ms=median(x.ms for x in results.prefill if x.p == p))
        for p in prompts
    ]
    decodes = [Decode(sequences=d.n, kv_tokens=d.kv, measured_ms=d.ms) for d in results.decode]
    return (*firsts, *decodes)


def _trace(
    name: str, requests: int, arrivals: Mapping[str, Sequence[tuple[float, int, int]]]
) -> Trace:
    kind = name.partition("_")[0]
    at_s, prompt, output = zip(*arrivals[_TRACES[kind]], strict=True)
    trace = Trace(
        name=name,
        at_s=np.array(at_s, dtype=np.float64),
        prompt=np.array(prompt, dtype=np.int64),
        output=np.array(output, dtype=np.int64),
    )
    within = trace.prompt + trace.output <= _THRESHOLD
    if name.startswith("mix_dual"):
        return pick(trace, np.flatnonzero(within if name == "mix_dual_short" else ~within))
    # The mix ran on one of two equal instances, which gets every second request.
    return pick(trace, np.arange(0, len(trace), 2) if kind == "mix" else np.arange(requests))


def _run(name: str, run: _Run, trace: Trace) -> RecordedRun:
    engine = EngineConfig(
        max_model_len=_WINDOW,
        max_num_seqs=run.seqs,
        max_num_batched_tokens=run.batch,
        num_blocks=run.blocks,
        async_scheduling=True,
    )
    real = times_of(trace, np.array(run.first_s), np.array(run.last_s), run.preemptions)
    return RecordedRun(name=name, engine=engine, trace=trace, real=real)


def off_by(real: float, guess: float) -> float:
    """Return the relative error of a simulated figure; 0 if both are 0."""
    return guess / real - 1 if real else float(guess > 0)


def show(console: Console, recordings: Sequence[Recording]) -> None:
    """Print the terms of each fit, the table of all runs, the mix, and the sensitivity."""
    console.print(_terms(recordings), _runs(recordings), sep="\n")
    mixed = next((each for each in recordings if "mix_dual_short" in each.runs), None)
    if mixed:
        console.print(_mix(mixed))
    console.print(_sensitivity(recordings))


def _terms(recordings: Sequence[Recording]) -> Table:
    table = _table("Fitted to the points of each engine", [each.name for each in recordings])
    for title, read in _TERM_ROWS.items():
        table.add_row(title, *(read(each) for each in recordings))
    return table


_TERM_ROWS: Final[Mapping[str, Callable[[Recording], str]]] = {
    "weights, ms": lambda of: f"{of.fit.profile.weights_ms:.2f}",
    "per sequence, us": lambda of: f"{1e3 * of.fit.profile.sequence_ms:.1f}",
    "per prefill token, us": lambda of: f"{1e3 * of.fit.profile.prefill_token_ms:.1f}",
    "per pair, ns": lambda of: f"{1e6 * of.fit.profile.prefill_pair_ms:.2f}",
    "per KV token, ns": lambda of: f"{1e6 * of.fit.profile.kv_token_ms:.1f}",
    "launch of a prefill, ms": lambda of: f"{of.fit.profile.launch_ms:.1f}",
    "above 512 sequences, ms": lambda of: f"{of.fit.profile.eager_ms:.1f}{of.assumed}",
    "outside the engine, ms": lambda of: f"{of.fit.overhead_ms:.1f}",
    "residual, half / most": lambda of: f"{of.fit.median_off:.1%} / {of.fit.most_off:.1%}",
}


def _runs(recordings: Sequence[Recording]) -> Table:
    table = _table("Real vLLM/simulated", [title for title, _ in _FIGURES.values()])
    for each in recordings:
        for run in each.runs.values():
            real, guess = figures_of([run.real]), figures_of([each.simulate(run)])
            cells = [
                _pair(getattr(real, name) / unit, getattr(guess, name) / unit)
                for name, (_, unit) in _FIGURES.items()
            ]
            table.add_row(f"{each.name} {run.name}", *cells)
    return table


_FIGURES: Final = {
    "output_tokens_per_s": ("tokens/s", 1.0),
    "ttft_p50_ms": ("TTFT P50 s", 1e3),
    "ttft_p99_ms": ("TTFT P99 s", 1e3),
    "tpot_p50_ms": ("TPOT P50 ms", 1.0),
    "tpot_p99_ms": ("TPOT P99 ms", 1.0),
    "preemptions": ("preempted", 1.0),
}


def _pair(real: float, guess: float) -> str:
    # 3787, 25.5, 0.065, and 29 preemptions.
    digits = 0 if real >= 100 or real == int(real) else 1 if real >= 1 else 3
    shown = f"{real:.{digits}f}/{guess:.{digits}f}"
    return shown if real == guess else f"{shown} {off_by(real, guess):+.0%}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixFigures:
    """Two instances under the mix; times in seconds, of short and of long requests."""

    makespan_s: float
    busy_s: float
    short_p50_s: float
    short_p99_s: float
    long_p50_s: float
    long_p99_s: float
    tpot_p99_ms: float


def mix_of(parts: Sequence[tuple[Trace, InstanceTimes]]) -> MixFigures:
    """Return the figures of two instances; one part stands for two that are alike."""
    ends = [times.end_s for _, times in parts]
    short, long = (
        np.concatenate([times.ttft_s[_within(trace) == side] for trace, times in parts])
        for side in (True, False)
    )
    return MixFigures(
        makespan_s=max(ends),
        busy_s=sum(ends) * 2 / len(parts),
        short_p50_s=float(np.percentile(short, 50)),
        short_p99_s=float(np.percentile(short, 99)),
        long_p50_s=float(np.percentile(long, 50)),
        long_p99_s=float(np.percentile(long, 99)),
        tpot_p99_ms=float(np.percentile(np.concatenate([t.tpot_s for _, t in parts]), 99)) * 1e3,
    )


def _within(trace: Trace) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    return trace.prompt + trace.output <= _THRESHOLD


# Each fleet's runs, and max_num_seqs where no run had it.
MIXES: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    "2 x default (1024)": (("mix_default1024", 0),),
    "2 x 16 sequences": (("mix_homog16", 0),),
    "short 128 + long 16": (("mix_dual_short", 0), ("mix_dual_long", 0)),
    "short 256 + long 64": (("mix_dual_short", 256), ("mix_dual_long", 64)),
}


def mixes(recording: Recording) -> Iterator[tuple[str, MixFigures | None, MixFigures]]:
    """Yield each fleet of the mix: as measured, None if it was not, and as simulated."""
    for title, parts in MIXES.items():
        runs = [(recording.runs[name], seqs) for name, seqs in parts]
        guess = mix_of([(run.trace, recording.simulate(run, seqs=seqs)) for run, seqs in runs])
        measured = all(not seqs for _, seqs in parts)
        yield title, mix_of([(run.trace, run.real) for run, _ in runs]) if measured else None, guess


def _mix(recording: Recording) -> Table:
    columns = ("makespan s", "busy GPU-s", "short TTFT P50/P99 s", "long TTFT P50/P99 s")
    table = _table("The mix on two instances", (*columns, "TPOT P99 ms"))
    for title, real, guess in mixes(recording):
        if real:
            table.add_row(f"{title}: vLLM", *_mix_cells(real))
        table.add_row(f"{title}: simulated", *_mix_cells(guess))
    return table


def _mix_cells(of: MixFigures) -> tuple[str, ...]:
    return (
        f"{of.makespan_s:.1f}",
        f"{of.busy_s:.1f}",
        f"{of.short_p50_s:.1f} / {of.short_p99_s:.1f}",
        f"{of.long_p50_s:.1f} / {of.long_p99_s:.1f}",
        f"{of.tpot_p99_ms:.0f}",
    )


def _sensitivity(recordings: Sequence[Recording]) -> Table:
    columns = [f"{speed - 1:+.0%}" if speed != 1 else "as fitted" for speed in _SPEEDS]
    title = "TTFT P50 / P99 ms if the capacity were 10 % less or more"
    table = _table(title, ("vLLM", *columns))
    for each in recordings:
        for run in each.runs.values():
            if run.name.startswith("rate"):
                guesses = [figures_of([each.simulate(run, speed=speed)]) for speed in _SPEEDS]
                cells = [_ttft(figures) for figures in (figures_of([run.real]), *guesses)]
                table.add_row(f"{each.name} {run.name}", *cells)
    return table


def _ttft(figures: ReplayFigures) -> str:
    return f"{figures.ttft_p50_ms:.0f} / {figures.ttft_p99_ms:.0f}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, title_style="bold")
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def named_profile_of(recordings: Sequence[Recording]) -> tuple[InstanceProfile, list[Measurement]]:
    """Return the named profile `h100-llama8b`, and its points: all of the last recording.

    Its points end at 512 sequences and 134,001 KV tokens; beyond them are those of the others.
    """
    default = recordings[-1]
    most = max(p.kv_tokens for p in default.points if isinstance(p, Decode))
    points = list(default.points)
    for other in recordings[:-1]:
        points += [
            point
            for point in other.points
            if isinstance(point, Decode)
            and (point.sequences > GRAPH_SEQUENCES or point.kv_tokens > most * 1.01)
        ]
    decodes = [point for point in points if isinstance(point, Decode)]
    batch = default.fit.profile.chunk_tokens
    found = fit(points, batch)
    profile = InstanceProfile(
        name="h100-llama8b",
        pace=_rounded(found.profile),
        kv_tokens=default.kv_tokens,
        gpus=1,
        price_per_gpu_h=_PRICE,
        overhead_s=round(found.overhead_ms / 1e3, 6),
        max_num_batched_tokens=batch,
        max_num_seqs=1024,
        measured_sequences=max(point.sequences for point in decodes),
        measured_kv_tokens=round(max(point.kv_tokens for point in decodes)),
        source=H100_SOURCE,
    )
    return profile, points


def _rounded(pace: Profile) -> Profile:
    """Return the terms to six digits, so that the file does not depend on the last bits."""
    terms = {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in asdict(pace).items()
    }
    return msgspec.convert(terms, Profile)


def write_named(recordings: Sequence[Recording], file: Path) -> None:
    """Write the named profile with its points."""
    profile, points = named_profile_of(recordings)
    file.write_text(write_profile(profile, [asdict(p) for p in points]) + "\n", encoding="utf-8")


def _synchronous(recording: Recording) -> Recording:
    runs = {
        name: replace(run, engine=replace(run.engine, async_scheduling=False))
        for name, run in recording.runs.items()
    }
    return replace(recording, runs=runs)


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the recording")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the profile of its points"
    )
    parser.add_argument("--synchronous", action="store_true", help="without async scheduling")
    given = parser.parse_args()
    recordings = read_recordings(given.folder)
    if given.synchronous:
        recordings = [_synchronous(each) for each in recordings]
    if given.write:
        write_named(recordings, given.write)
    show(report_console(_WIDTH), recordings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
