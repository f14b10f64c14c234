import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from extproc.local.faults import Fault
from extproc.local.replicas import Replicas
from extproc.local.report import print_report, to_json
from extproc.local.routing_fit import RoutingFit
from extproc.local.tally import CategoryFigures, PoolFigures, Report, Spread

_POOL = PoolFigures(
    name="short",
    max_model_len=2048,
    simulated=True,
    requests=80,
    reasons={"fits": 79, "not routed": 1},
    refused=2,
    failed=0,
    prompt_tokens=1234,
    completion_tokens=567,
    ttft_p50_s=0.25,
    ttft_p99_s=1.5,
    tpot_p50_s=0.02,
    tpot_p99_s=math.nan,
    preemptions=None,
)
_CATEGORY = CategoryFigures(
    name="structured/simulated",
    requests=30,
    samples=20,
    learnt=4.2,
    off_by=0.02,
    true=4.0,
    without_template=4.1,
)
_FIT = RoutingFit(known=99, unknown=1, refused=2, clamped=1, harmless=0, over_routed=5, too_large=0)
_REPORT = Report(
    requests=100,
    elapsed_s=61.4,
    kinds={"russian": 40, "english": 60},
    streamed=50,
    with_usage=75,
    with_limit=80,
    several_sequences=7,
    simulated=True,
    pools=(_POOL,),
    categories=(_CATEGORY,),
    fit=_FIT,
    lost=(),
    altered=(),
    added_ms=Spread(100, 0.51, 2.25),
    short_share=0.8,
)


def _printed(report: Report, width: int = 80) -> str:
    stream = io.StringIO()
    print_report(Console(file=stream, width=width), report)
    return stream.getvalue()


def _words(report: Report) -> str:
    return " ".join(_printed(report).split())


@pytest.mark.parametrize(
    "text",
    [
        "fits 79, not routed 1",
        "structured/simulated 30 20 4.20 4.00 +5.0% 4.10 2.0%",
        "short 1234 567 0.25 1.50 20.0 -",
        "100 requests in 61 s (english 60, russian 40)",
        "80 with a stated output limit, 7 with several sequences, judged by the largest.",
        "Misrouted: 3 of 99 (3.03%): 2 refused, 1 clamped, 0 harmless.",
        "Over-routed: 5 of 99 (5.05%).",
        "Lost: 0 of 100 answers.",
        "Altered: 0 of 100,",
        "P50 0.51 ms, P99 2.25 ms",
        "Short: 80.0% of the requests went to the smallest pool.",
        "dualpool plan --from http://HOST:PORT --profile NAME, with a service that runs (this one "
        "with --keep).",
        "The pools are simulated",
    ],
)
def test_the_report_says(text):
    assert text in _words(_REPORT)


def test_eighty_columns_are_enough():
    assert "…" not in _printed(_REPORT)
    assert max(map(len, _printed(_REPORT).splitlines())) <= 80


def test_real_pools_are_called_real():
    assert "The pools are real servers." in _words(replace(_REPORT, simulated=False))


def test_a_stack_seen_from_outside_says_what_is_out_of_sight():
    words = _words(replace(_REPORT, recorded=False))
    assert "Altered: 0 of 100, as far as the answers show" in words
    assert "Not visible from outside the stack" in words
    assert "SHA-256" not in words


def test_only_the_first_faults_are_listed():
    faults = tuple(Fault(f"r{n}", "broken: [why]") for n in range(7))
    words = _words(replace(_REPORT, lost=faults))
    assert "r4: broken: [why]" in words
    assert "r5" not in words
    assert "and 2 more" in words


def test_the_json_has_the_figures_and_what_follows_from_them():
    report = json.loads(to_json(_REPORT))
    assert report["fit"]["misrouted"] == 3
    assert round(report["categories"][0]["error"], 3) == 0.05
    assert report["short_share"] == 0.8


def test_what_is_unknown_is_null_in_json():
    report = json.loads(to_json(_REPORT))
    assert report["pools"][0]["tpot_p99_s"] is None


@pytest.mark.parametrize(
    ("equal", "said"), [(True, "all hold the same"), (False, "they do not hold the same")]
)
def test_replicas_that_share_what_they_learn(equal, said):
    report = replace(_REPORT, replicas=Replicas(count=3, answered=2, equal=equal))
    assert f"Replicas: 2 of 3 answered; {said}." in _words(report)
    assert json.loads(to_json(report))["replicas"]["equal"] == equal


def test_one_service_alone_agrees_with_nobody():
    assert "Replicas" not in _words(_REPORT)
