"""The papers' figures beside ours, as far as a formula gives them; nothing here is simulated.

Every figure of ours is computed; where it is not the paper's, the row says why.
"""

import math
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from extproc.budget.paper import PaperEstimator
from extproc.budget.values import Asked, Measure, Observation, Outcome
from extproc.papers.authors import AuthorsQuestion, authors_fleet
from extproc.planner.sizing.closed_form import ClosedForm, Rates, ideal_saving, split_fleet
from extproc.planner.sizing.estimators import PERFECT
from extproc.planner.sizing.question import Question, SlotRule
from extproc.planner.sizing.search import Planner
from extproc.planner.traffic.lengths import Workload, from_cdf, merged
from extproc.planner.traffic.published import AGENTS, AZURE_2023, LMSYS
from extproc.simulator.engine.profiles import (
    MI300X_QWEN3_235B,
    NAMED,
    InstanceProfile,
    kv_cache_bytes,
)

THRESHOLD: Final = 8192
RATES: Final = Rates(homogeneous=2.8, short=11.2, long=2.8)  # arXiv 2604.08075, Table 1
_RATE_PER_S: Final = 1000.0
# The papers count an instance as one GPU.
INSTANCE: Final[InstanceProfile] = replace(NAMED["a100-llama70b"], gpus=1)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what it is, what the paper says, what we get, and why that differs."""

    what: str
    paper: str
    ours: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Figures that belong together."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""


def closed_form_section() -> Section:
    """Return the two cases that the closed form gives exactly."""
    rows = [Row("homogeneous, 1000 req/s", "358", f"{_fleet(0.8).homogeneous}")]
    for alpha, total, saved in ((0.80, 144, "60.0 %"), (0.68, 176, "51.0 %")):
        fleet = _fleet(alpha)
        rows.append(
            Row(
                f"alpha {alpha:.2f}: instances, ideal saving",
                f"{total}, {saved}",
                f"{fleet.short + fleet.long}, {ideal_saving(alpha, 4):.1%}",
                f"{fleet.short} + {fleet.long}; with whole instances {fleet.saving:.1%}",
            )
        )
    return Section("Closed form (2604.08075, section 5)", tuple(rows))


def table_2_section() -> Section:
    """Return what alpha or what long pool reproduces Table 2."""
    return Section(
        "Table 2: instances at 1000 req/s",
        tuple(
            row
            for name, alpha, total in (("Azure", 0.80, 208), ("LMSYS", 0.68, 246))
            for row in _reproduced(name, alpha, total)
        ),
        "Either reproduces the total; the paper does not say which holds. By the second, requests"
        " of the long pool hold a slot so many times as long as the mean request, the correction"
        " of arXiv 2604.09613.",
    )


def _reproduced(name: str, alpha: float, total: int) -> Iterator[Row]:
    found = next(a / 1000 for a in range(1001) if _total(a / 1000, RATES) <= total)
    yield Row(
        f"{name}: 358 -> {total}, all rates as published",
        f"alpha {alpha:.2f}",
        f"alpha {found:.3f}: {_total(found, RATES)}",
        f"alpha {alpha:.2f} gives {_total(alpha, RATES)}",
    )
    long = (1 - alpha) * _RATE_PER_S / (total - math.ceil(alpha * _RATE_PER_S / RATES.short))
    yield Row(
        f"{name}: alpha {alpha:.2f} as published",
        "2.8 req/s in the long pool",
        f"{long:.2f} req/s: {_total(alpha, replace(RATES, long=long + 1e-9))}",
        f"a tail that is {RATES.long / long:.2f} times as long",
    )


def _total(alpha: float, rates: Rates) -> int:
    fleet = split_fleet(_RATE_PER_S, alpha, rates)
    return fleet.short + fleet.long


def _fleet(alpha: float) -> ClosedForm:
    return split_fleet(_RATE_PER_S, alpha, RATES)


def table_5_section() -> Section:
    """Return what the paper's rule learns in 50 observations of texts that vary by 15 %."""
    rows = []
    for kind, true, learnt, misrouted in (
        ("English", 4.48, 4.41, "0.3 %"),
        ("code", 3.52, 3.47, "0.2 %"),
        ("CJK", 2.01, 2.08, "0.8 %"),
    ):
        ratios = sorted(_learn(true, random.Random(run)) for run in range(400))  # noqa: S311
        mean = statistics.mean(ratios)
        rows.append(
            Row(
                f"{kind}: true {true}, learnt",
                f"{learnt} ({abs(learnt / true - 1):.1%} off, misrouted {misrouted})",
                f"{mean:.2f} ({abs(mean / true - 1):.1%} off)",
                f"95 % of runs: {ratios[10]:.2f} to {ratios[-11]:.2f}; without noise"
                f" {true + 0.95**50 * (4 - true):.2f}",
            )
        )
    return Section(
        "Table 5: bytes per token after 50 observations, beta .95, prior 4.0",
        tuple(rows),
        "How often that misroutes depends on how many requests lie near the threshold: `dualpool"
        " evaluate` measures it on real texts and tokenizers (README, How good it is).",
    )


def _learn(true: float, rng: random.Random) -> float:
    estimator = PaperEstimator(
        beta=0.95,
        gamma=1.0,
        prior_bytes_per_token=4.0,
        default_output_tokens=0,
        categories=1,
    )
    for _ in range(50):
        text_bytes = round(1000 * rng.gauss(true, 0.15 * true))
        asked = Asked("m", "c", Measure(text_bytes, 0, ()), None)
        estimator.observe(Observation(asked, Outcome.COMPLETE, THRESHOLD, 1000, 1))
    return float(estimator.learnt().categories["c/m"]["bytes_per_token"])


def golden_section() -> Section:
    """Return the rows of the authors' planner, by the compatible formula."""
    lmsys = AuthorsQuestion(cdf=LMSYS, rate_per_s=100, slo_s=0.5)
    rows = [Row("LMSYS, 100 req/s, 500 ms: homogeneous", "14", _golden(lmsys, 65_536))]
    for threshold, printed in ((512, 15), (1024, 12), (2048, 9), (4096, 8), (8192, 8), (12288, 8)):
        rows.append(Row(f"  B {threshold}", f"{printed}", _golden(lmsys, threshold)))
    for name, cdf, alone, both in (
        ("Azure", AZURE_2023, 284, "118 + 2"),
        ("LMSYS", LMSYS, 139, "30 + 30"),
    ):
        question = AuthorsQuestion(cdf=cdf, rate_per_s=1000, slo_s=2.0)
        fleet = authors_fleet(question, THRESHOLD)
        rows.append(
            Row(f"{name}, 1000 req/s, 2 s: homogeneous", f"{alone}", _golden(question, 65_536))
        )
        rows.append(Row("  B 8192", both, f"{fleet.short} + {fleet.long}"))
    return Section(
        "The authors' planner (2603.16054), by the compatible formula, instances", tuple(rows)
    )


def _golden(question: AuthorsQuestion, threshold: int) -> str:
    return str(authors_fleet(question, threshold).instances)


def mi300x_section() -> Section:
    """Return the case of Qwen3-235B on MI300X, 10,000 req/s."""
    build = MI300X_QWEN3_235B
    token = build.model.kv_token_bytes(build.tensor_parallel)
    room = kv_cache_bytes(build)
    short, long = int(room / (token * 8192)), int(room / (token * 32_768))
    rate = 10_000 / 197
    rates = Rates(homogeneous=rate, short=rate * short / long, long=rate)
    alpha = next(a / 1000 for a in range(1001) if _nodes(a / 1000, rates) <= 137)
    saved = (1576 - 1096) * build.accelerator.price_per_h * 8760
    return Section(
        "MI300X, Qwen3-235B FP8, 8 GPUs a node (2604.08075)",
        (
            Row("KV cache of a GPU, bytes a token", "133.4 GB", f"{room / 1e9:.1f} GB, {token}"),
            Row("sequences at 8K and at 32K", "676, 169", f"{short}, {long}"),
            Row(
                "nodes at 10,000 req/s",
                "197 -> 137",
                f"197 -> {_nodes(alpha, rates)} with alpha {alpha:.3f}",
                "the paper names no alpha; 197 nodes are 50.8 req/s each",
            ),
            Row("GPUs", "1576 -> 1096 (30.5 %)", f"{8 * 197} -> {8 * 137} ({1 - 137 / 197:.1%})"),
            Row("saved a year of 8760 h", "$15.4M", f"${saved / 1e6:.2f}M", "480 GPUs at $3.67"),
        ),
    )  # fmt: skip


def _nodes(alpha: float, rates: Rates) -> int:
    fleet = split_fleet(10_000, alpha, rates)
    return fleet.short + fleet.long


def traces_section() -> Section:
    """Return what the public traces give in place of the papers' alphas."""
    public = (("Azure 2023", AZURE_2023, ".80"), ("LMSYS", LMSYS, ".68"), ("agents", AGENTS, ""))
    rows = [plan_row(from_cdf(name, cdf), alpha) for name, cdf, alpha in public]
    return Section(
        "What the public distributions give, 1000 req/s, our planner",
        tuple(rows),
        "Nearly all of the first two is within 8192 tokens: the papers' tails come from elsewhere.",
    )


def plan_row(workload: Workload, alpha: str = "") -> Row:
    """Return a workload's alpha, and what splitting gives; `alpha` is the paper's."""
    best = Planner(question(workload)).best_of(2)
    alone = best.against or best
    return Row(
        f"{workload.name}: alpha at {THRESHOLD}; instances",
        alpha,
        f"{workload.share_within(THRESHOLD):.4f}; {alone.instances} -> {best.instances}"
        f" ({best.saving:.1%}) at {best.thresholds[0]}",
        f"{best.over_window:.2%} over {question(workload).window} left out"
        if best.over_window
        else "",
    )


def curve_section() -> Section:
    """Return the saving over the threshold, and what a third pool adds."""
    curves = [_curve(workload) for workload in (from_cdf("LMSYS", LMSYS), with_tail())]
    rows = [
        Row(
            f"B {threshold}: share of the best saving",
            "over 80 %" if 4096 <= threshold <= 16_384 else "",
            ", ".join(f"{curve.savings[threshold] / curve.best:.0%}" for curve in curves),
        )
        for threshold in _CURVE
    ]
    rows.append(Row("best", "", ", ".join(f"{curve.best:.1%}" for curve in curves)))
    rows.append(
        Row("a third pool adds", "about 2 %", ", ".join(f"{curve.third:.1%}" for curve in curves))
    )
    return Section(
        "Threshold curve at 1000 req/s, our planner: LMSYS, Azure 2023 with a tail",
        tuple(rows),
        TAIL_NOTE + " With it the long pool is most of the fleet, so the best threshold is higher.",
    )


_CURVE: Final = (1024, 2048, 4096, 6144, 8192, 12_288, 16_384, 32_768)


@dataclass(frozen=True, slots=True)
class _Curve:
    """Savings by threshold, the best of all, and what a third pool saves on top."""

    savings: dict[int, float]
    best: float
    third: float


def _curve(workload: Workload) -> _Curve:
    planner = Planner(question(workload))
    savings = {threshold: planner.at((threshold,)).saving for threshold in _CURVE}
    best = max(planner.best_of(2).saving, *savings.values())
    return _Curve(savings, best, planner.best_of(3).saving - best)


TAIL_NOTE: Final = (
    "The tail: 80 % of the requests are Azure's up to 8192 tokens, 20 % those of the agent-heavy"
    " distribution above. The papers' tail is not public; this is ours."
)


def with_tail() -> Workload:
    """Return Azure's lengths with alpha = .80: the rest is longer than 8192 tokens."""
    short = from_cdf("Azure 2023", AZURE_2023).between(0, THRESHOLD)
    return merged([short, from_cdf("tail", AGENTS).split(THRESHOLD)[1]], [0.8, 0.2])


def question(workload: Workload, rate_per_s: float = _RATE_PER_S) -> Question:
    """Ask as the papers do: full-length slots, an exact router, P99 TTFT 2 s and TPOT 80 ms."""
    return Question(
        workload=workload,
        rate_per_s=rate_per_s,
        profile=INSTANCE,
        estimator=PERFECT,
        slot_rule=SlotRule.WINDOW,
    )


def differences_section() -> Section:
    """Say where our planner differs from the authors', and why."""
    return Section(
        "Where ours differs from the authors' planner",
        (
            Row("TTFT objective", "binds the wait for a slot", "wait, prefill queue and prefill"),
            Row("TPOT objective", "none", "bounds max_num_seqs", "80 ms in 2604.08075"),
            Row("wait of P99", "Lee and Longton's mean", "the same, or Kimura's",
                "Kimura's where service varies less than exponential"),
            Row("lengths", "3,000 drawn with seed 42", "the distribution itself, no draw"),
            Row("long window's slots", "window / 16, 8K scaled", "the KV cache, by the window"),
            Row("least instances", "one more than the load", "utilisation at most .85"),
            Row("router", "knows the true total", "measured misroutes and over-routes"),
            Row("simulation", "a slot is free after S / slots", "vLLM's schedule, token by token",
                "theirs overstates capacity by the number of slots"),
            Row("requests over every window", "served", "counted and left out"),
        ),
    )  # fmt: skip


def fast_sections() -> Iterator[Section]:
    """Yield all sections, in some seconds."""
    yield closed_form_section()
    yield table_2_section()
    yield table_5_section()
    yield mi300x_section()
    yield golden_section()
    yield traces_section()
    yield curve_section()
    yield differences_section()
