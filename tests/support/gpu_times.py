"""Times of a GPU whose terms are known: points, and recorded runs."""

import json
from dataclasses import replace
from pathlib import Path

from extproc.profiling.fitting import Decode, FirstToken, Measurement, predict_ms
from extproc.simulator.engine import Engine, EngineConfig, EventKind, Profile, Sequence

# Prefill computes while the weights are read; prompts of up to 500 tokens take as long as their
# launch.
GPU = Profile(
    weights_ms=7.0,
    sequence_ms=0.01,
    chunk_tokens=8192,
    prefill_token_ms=0.023,
    prefill_pair_ms=8e-7,
    kv_token_ms=4e-5,
    overlap=True,
    launch_ms=12.0,
    graph_sequences=512,
    eager_ms=14.0,
)
OUTSIDE_MS = 3.0
PROMPTS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
LOADS = ((1, 50), (8, 400), (64, 3e3), (256, 1e4), (512, 2e4), (16, 6e4), (128, 3e5))
BLOCKS = 28_000
SEQS = {"mix_default1024": 1024, "mix_homog16": 16, "mix_dual_short": 128, "mix_dual_long": 16}
# Seconds, prompt and output tokens; every fifth is longer than 8,192.
MIX = [(0.0, 300 + 40 * i if i % 5 else 9_000 + 100 * i, 20 + i) for i in range(40)]
POISSON = [(0.05 * i, 200 + 37 * i, 10 + i) for i in range(40)]


def gpu_times(loads=LOADS, prompts=PROMPTS) -> list[Measurement]:
    blank = [Decode(sequences=n, kv_tokens=kv, measured_ms=0) for n, kv in loads]
    blank += [FirstToken(prompt_tokens=p, measured_ms=0) for p in prompts]
    return [replace(m, measured_ms=predict_ms(GPU, OUTSIDE_MS, m)) for m in blank]


def write_recording(folder: Path) -> None:
    """Write what real vLLM would have recorded if it were the simulator."""
    traces = {"mix_burst": MIX, "azure_15": POISSON, "azure_burst": MIX, "azure_7": POISSON}
    (folder / "traces.json").write_text(json.dumps(traces))
    runs = {name: _run(_part(name), seqs) for name, seqs in SEQS.items()}
    runs |= {"rate15_128": _run(POISSON, 128), "warm": _run(MIX, 16)}
    runs["burst_16"] = _run(MIX, 16) | {"cut": True}
    times = gpu_times()
    results = {
        "block_size": 16,
        "num_gpu_blocks": BLOCKS + 1,
        "prefill": [
            {"p": m.prompt_tokens, "ms": m.measured_ms} for m in times if isinstance(m, FirstToken)
        ],
        "decode": [
            {"n": m.sequences, "kv": m.kv_tokens, "ms": m.measured_ms}
            for m in times
            if isinstance(m, Decode)
        ],
        "runs": runs,
    }
    (folder / "run1").mkdir()
    (folder / "run1" / "results.json").write_text(json.dumps(results))


def _part(name: str):
    if not name.startswith("mix_dual"):
        return MIX[::2]
    return [row for row in MIX if (row[1] + row[2] <= 8192) == (name == "mix_dual_short")]


def _run(arrivals, seqs):
    engine = Engine(
        EngineConfig(
            max_model_len=65_536,
            max_num_seqs=seqs,
            max_num_batched_tokens=8192,
            num_blocks=BLOCKS,
            async_scheduling=True,
        ),
        GPU,
    )
    sent, events = [], []
    for at_s, prompt, output in arrivals:
        events += engine.advance(round(at_s * 1e9))
        sent.append(Sequence(prompt, output))
        engine.submit(sent[-1])
    events += engine.advance()

    def token_s(kind):
        found = {event.sequence: event.at_ns for event in events if event.kind is kind}
        return [(found[sequence] / 1e6 + OUTSIDE_MS) / 1e3 for sequence in sent]

    return {
        "requests": len(arrivals),
        "cut": False,
        "seqs": seqs,
        "blocks": BLOCKS,
        "batch": 8192,
        "preemptions": 0,
        "first_s": token_s(EventKind.FIRST_TOKEN),
        "last_s": token_s(EventKind.FINISHED),
    }
