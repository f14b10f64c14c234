"""Computes the demo's report from the record of a run.

Figures describe this run only; what was not observed is nan or counted as unknown.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from extproc.local.client import ClientAnswer, Ending
from extproc.local.faults import Fault, altered_answers, lost_answers
from extproc.local.fleet import StackPool
from extproc.local.inquiry import LearntRatio
from extproc.local.record import DemoRecord
from extproc.local.replicas import Replicas
from extproc.local.routing_fit import RoutingFit, judge_routing


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFigures:
    """One pool; times in seconds, of streamed answers, measured by the client."""

    name: str
    max_model_len: int
    simulated: bool
    requests: int
    reasons: dict[str, int]
    refused: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    tpot_p99_s: float
    preemptions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryFigures:
    """A category's bytes per token: learnt by the service, and true of this traffic.

    true: text bytes per prompt token; without_template: per token of the text alone.
    off_by: mean relative error of the prompt estimates, each before its answer was learnt.
    """

    name: str
    requests: int
    samples: int
    learnt: float
    true: float
    without_template: float
    off_by: float

    @property
    def error(self) -> float:
        """Relative error of the learnt ratio."""
        return self.learnt / self.true - 1


@dataclass(frozen=True, slots=True)
class Spread:
    """Number of values, their median and their 99th percentile."""

    count: int
    p50: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Result of a demo run; added_ms: latency of the service, measured by Envoy."""

    requests: int
    elapsed_s: float
    kinds: dict[str, int]
    streamed: int
    with_usage: int
    with_limit: int
    several_sequences: int
    simulated: bool
    pools: tuple[PoolFigures, ...]
    categories: tuple[CategoryFigures, ...]
    fit: RoutingFit
    lost: tuple[Fault, ...]
    altered: tuple[Fault, ...]
    added_ms: Spread
    short_share: float
    recorded: bool = True
    replicas: Replicas | None = None

    @property
    def sound(self) -> bool:
        """Whether every answer reached its client as the pool sent it."""
        return not self.lost and not self.altered


def tally(record: DemoRecord) -> Report:
    """Return the report on a run."""
    answers = record.answers
    items = [answer.item for answer in answers]
    placed = record.by_pool()
    added = [row.added_us / 1000 for row in record.rows.values() if not math.isnan(row.added_us)]
    return Report(
        requests=len(answers),
        elapsed_s=record.elapsed_s,
        kinds=dict(Counter(item.kind for item in items)),
        streamed=sum(item.stream for item in items),
        with_usage=sum(item.include_usage or not item.stream for item in items),
        with_limit=sum(item.max_tokens is not None for item in items),
        several_sequences=sum(item.sequences > 1 for item in items),
        simulated=any(pool.simulated for pool in record.pools),
        pools=tuple(_pool(pool, placed[pool.name], record) for pool in record.pools),
        categories=_categories(record),
        fit=judge_routing(record),
        lost=lost_answers(record),
        altered=altered_answers(record),
        added_ms=spread(added),
        short_share=len(placed[record.pools[0].name]) / max(1, len(answers)),
        recorded=record.recorded,
        replicas=record.replicas,
    )


def _pool(pool: StackPool, answers: Sequence[ClientAnswer], record: DemoRecord) -> PoolFigures:
    # The first byte of a document comes with its last token, so only streams show a TTFT.
    streams = [a for a in answers if a.item.stream and a.ending is Ending.COMPLETE]
    ttft = spread(a.started_s for a in streams)
    tpot = spread(_tpot_s(a) for a in streams if a.longest_tokens > 1)
    return PoolFigures(
        name=pool.name,
        max_model_len=pool.max_model_len,
        simulated=pool.simulated,
        requests=len(answers),
        reasons=dict(Counter(a.reason or "not routed" for a in answers)),
        refused=sum(a.ending is Ending.REFUSED for a in answers),
        failed=sum(a.ending is Ending.FAILED for a in answers),
        prompt_tokens=sum(record.all_prompt_tokens(a) for a in answers),
        completion_tokens=sum(a.completion_tokens for a in answers),
        ttft_p50_s=ttft.p50,
        ttft_p99_s=ttft.p99,
        tpot_p50_s=tpot.p50,
        tpot_p99_s=tpot.p99,
        preemptions=record.preemptions.get(pool.name),
    )


def _tpot_s(answer: ClientAnswer) -> float:
    return (answer.ended_s - answer.started_s) / (answer.longest_tokens - 1)


def _categories(record: DemoRecord) -> tuple[CategoryFigures, ...]:
    grouped: dict[str, list[ClientAnswer]] = {}
    for answer in record.answers:
        if answer.category:
            grouped.setdefault(answer.category, []).append(answer)
    return tuple(_category(name, grouped[name], record) for name in sorted(grouped))


def _category(name: str, answers: Sequence[ClientAnswer], record: DemoRecord) -> CategoryFigures:
    learnt = record.learnt.get(name, LearntRatio(math.nan, math.nan, 0))
    text_bytes = {a.item.request_id: a.item.text_bytes for a in answers}
    prompts = {a.item.request_id: record.all_prompt_tokens(a) for a in answers}
    return CategoryFigures(
        name=name,
        requests=len(answers),
        samples=learnt.samples,
        learnt=learnt.bytes_per_token,
        true=_ratio(text_bytes, prompts),
        without_template=_ratio(text_bytes, record.text_tokens),
        off_by=learnt.off_by,
    )


def _ratio(text_bytes: Mapping[str, int], tokens: Mapping[str, int]) -> float:
    """Return bytes per token over the requests whose tokens are known; nan if there are none."""
    known = {key for key in text_bytes if tokens.get(key)}
    total = sum(tokens[key] for key in known)
    return sum(text_bytes[key] for key in known) / total if total else math.nan


def spread(values: Iterable[float]) -> Spread:
    """Return the median and the 99th percentile by nearest rank; nan if there are no values."""
    ordered = sorted(values)
    if not ordered:
        return Spread(0, math.nan, math.nan)
    p50, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
    return Spread(len(ordered), p50, p99)
