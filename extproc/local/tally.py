"""From what was seen of the demo's traffic to its report: pure functions over values.

Every figure is of this traffic; what was not seen is nan or counted as unknown, never guessed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from extproc.local.client import ClientAnswer, Ending
from extproc.local.envoy import AccessLogRow
from extproc.local.fleet import StackPool
from extproc.local.inquiry import LearntRatio
from extproc.local.witness import Sighting

Finder = Callable[[ClientAnswer, Sequence[Sighting]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRecord:
    """All that was seen.

    prompt_tokens, text_tokens: by request id, as /tokenize counts them with and without the
    chat template; the first where usage did not tell, the second for a sample of the requests.
    witnessed: whether the pools' side of each request was seen; without, sightings say nothing.
    """

    pools: tuple[StackPool, ...]
    answers: tuple[ClientAnswer, ...]
    sightings: Mapping[str, Sequence[Sighting]]
    rows: Mapping[str, AccessLogRow]
    learnt: Mapping[str, LearntRatio]
    prompt_tokens: Mapping[str, int]
    text_tokens: Mapping[str, int]
    preemptions: Mapping[str, int]
    elapsed_s: float
    witnessed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFigures:
    """One pool's part; times in seconds, of streamed answers, as the client saw them."""

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
    """A category's ratio in bytes per token: learnt by the service, and true of this traffic.

    true: text bytes over prompt tokens; without_template: over the tokens of the text alone.
    off_by: the mean relative error of the estimates before each answer was learnt.
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
        """Learnt over true, less one."""
        return self.learnt / self.true - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingFit:
    """Whether each request went where it belongs, once its true tokens are known.

    A misrouted one needs more than its pool's max_model_len (prompt and the stated output, or
    the actual one where none was stated): the pool refused it, clamped its output, or was lucky
    that the answer ended early. An over-routed one would have fitted a smaller pool.
    """

    known: int
    unknown: int
    refused: int
    clamped: int
    harmless: int
    over_routed: int
    too_large: int

    @property
    def misrouted(self) -> int:
        """All that were sent to too small a pool."""
        return self.refused + self.clamped + self.harmless


@dataclass(frozen=True, slots=True)
class Fault:
    """One request whose answer was lost or altered, and how."""

    request_id: str
    what: str


@dataclass(frozen=True, slots=True)
class Spread:
    """The median and the 99th percentile of so many values."""

    count: int
    p50: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The demo's outcome; `added_ms` is what Envoy itself measured of the service."""

    requests: int
    elapsed_s: float
    kinds: dict[str, int]
    streamed: int
    with_usage: int
    with_limit: int
    simulated: bool
    pools: tuple[PoolFigures, ...]
    categories: tuple[CategoryFigures, ...]
    fit: RoutingFit
    lost: tuple[Fault, ...]
    altered: tuple[Fault, ...]
    added_ms: Spread
    short_share: float
    witnessed: bool = True

    @property
    def sound(self) -> bool:
        """Whether every answer reached its client as the pool gave it."""
        return not self.lost and not self.altered


def tally(seen: DemoRecord) -> Report:
    """Return the report of all that was seen."""
    answers = seen.answers
    placed = _place(seen)
    added = [row.added_us / 1000 for row in seen.rows.values() if not math.isnan(row.added_us)]
    return Report(
        requests=len(answers),
        elapsed_s=seen.elapsed_s,
        kinds=dict(Counter(answer.item.kind for answer in answers)),
        streamed=sum(answer.item.stream for answer in answers),
        with_usage=sum(answer.item.include_usage or not answer.item.stream for answer in answers),
        with_limit=sum(answer.item.max_tokens is not None for answer in answers),
        simulated=any(pool.simulated for pool in seen.pools),
        pools=tuple(_pool(pool, placed[pool.name], seen) for pool in seen.pools),
        categories=_categories(seen),
        fit=_fit(seen, placed),
        lost=_faults(seen, lost if seen.witnessed else unanswered),
        altered=_faults(seen, altered if seen.witnessed else contradictory),
        added_ms=spread(added),
        short_share=len(placed[seen.pools[0].name]) / max(1, len(answers)),
        witnessed=seen.witnessed,
    )


def _place(seen: DemoRecord) -> dict[str, list[ClientAnswer]]:
    """Group the answers by the pool that gave them: by Envoy's log, else by the header."""
    placed: dict[str, list[ClientAnswer]] = {pool.name: [] for pool in seen.pools}
    for answer in seen.answers:
        row = seen.rows.get(answer.item.request_id)
        name = row.pool if row and row.pool else answer.pool
        placed.get(name, placed[seen.pools[-1].name]).append(answer)
    return placed


def _pool(pool: StackPool, answers: Sequence[ClientAnswer], seen: DemoRecord) -> PoolFigures:
    streams = [a for a in answers if a.item.stream and a.ending is Ending.COMPLETE]
    ttft = spread(a.started_s for a in streams)
    tpot = spread(
        (a.ended_s - a.started_s) / (a.completion_tokens - 1)
        for a in streams
        if a.completion_tokens > 1
    )
    return PoolFigures(
        name=pool.name,
        max_model_len=pool.max_model_len,
        simulated=pool.simulated,
        requests=len(answers),
        reasons=dict(Counter(a.reason or "not routed" for a in answers)),
        refused=sum(a.ending is Ending.REFUSED for a in answers),
        failed=sum(a.ending is Ending.FAILED for a in answers),
        prompt_tokens=sum(_prompt_tokens(a, seen) for a in answers),
        completion_tokens=sum(a.completion_tokens for a in answers),
        ttft_p50_s=ttft.p50,
        ttft_p99_s=ttft.p99,
        tpot_p50_s=tpot.p50,
        tpot_p99_s=tpot.p99,
        preemptions=seen.preemptions.get(pool.name),
    )


def _prompt_tokens(answer: ClientAnswer, seen: DemoRecord) -> int:
    return answer.prompt_tokens or seen.prompt_tokens.get(answer.item.request_id, 0)


def _categories(seen: DemoRecord) -> tuple[CategoryFigures, ...]:
    grouped: dict[str, list[ClientAnswer]] = {}
    for answer in seen.answers:
        if answer.category:
            grouped.setdefault(answer.category, []).append(answer)
    return tuple(_category(name, grouped[name], seen) for name in sorted(grouped))


def _category(name: str, answers: Sequence[ClientAnswer], seen: DemoRecord) -> CategoryFigures:
    learnt = seen.learnt.get(name, LearntRatio(math.nan, math.nan, 0))
    ids = {a.item.request_id: a.item.text_bytes for a in answers}
    prompts = {a.item.request_id: _prompt_tokens(a, seen) for a in answers}
    return CategoryFigures(
        name=name,
        requests=len(answers),
        samples=learnt.samples,
        learnt=learnt.bytes_per_token,
        true=_ratio(ids, prompts),
        without_template=_ratio(ids, seen.text_tokens),
        off_by=learnt.off_by,
    )


def _ratio(text_bytes: Mapping[str, int], tokens: Mapping[str, int]) -> float:
    """Return bytes per token over the requests whose tokens are known; nan without any."""
    known = {key for key in text_bytes if tokens.get(key)}
    total = sum(tokens[key] for key in known)
    return sum(text_bytes[key] for key in known) / total if total else math.nan


def _fit(seen: DemoRecord, placed: Mapping[str, Sequence[ClientAnswer]]) -> RoutingFit:
    verdicts = Counter(
        _verdict(answer, index, seen)
        for index, pool in enumerate(seen.pools)
        for answer in placed[pool.name]
    )
    return RoutingFit(
        known=sum(verdicts.values()) - verdicts["unknown"],
        unknown=verdicts["unknown"],
        refused=verdicts["refused"],
        clamped=verdicts["clamped"],
        harmless=verdicts["harmless"],
        over_routed=verdicts["over_routed"],
        too_large=verdicts["too_large"],
    )


def _verdict(answer: ClientAnswer, index: int, seen: DemoRecord) -> str:
    prompt = _prompt_tokens(answer, seen)
    if not prompt:
        return "unknown"
    total = prompt + (answer.item.max_tokens or max(1, answer.completion_tokens))
    windows = [pool.max_model_len for pool in seen.pools]
    if total > windows[-1]:
        return "too_large"
    if total > windows[index]:
        return _harm(answer)
    if index > 0 and total <= windows[index - 1]:
        return "over_routed"
    if index < len(windows) - 1 and _cut_at_window(answer, total, windows[index]):
        return "clamped"
    return "right"


def _harm(answer: ClientAnswer) -> str:
    if answer.ending is Ending.REFUSED:
        return "refused"
    return "clamped" if answer.finish == "length" else "harmless"


def _cut_at_window(answer: ClientAnswer, total: int, window: int) -> bool:
    return answer.item.max_tokens is None and answer.finish == "length" and total >= window


def _faults(seen: DemoRecord, find: Finder) -> tuple[Fault, ...]:
    found = (
        (answer.item.request_id, find(answer, seen.sightings.get(answer.item.request_id, ())))
        for answer in seen.answers
    )
    return tuple(Fault(request_id, what) for request_id, what in found if what)


def lost(answer: ClientAnswer, sightings: Sequence[Sighting]) -> str:
    """Say why an answer is lost; "" where the client got what the pool had to say."""
    if ended := _broken_off(answer):
        return ended
    if not sightings:
        return f"status {answer.status}, and no pool has seen the request"
    return ""


def unanswered(answer: ClientAnswer, _: Sequence[Sighting]) -> str:
    """Say why an answer is lost, where only the client's side was seen."""
    return f"status {answer.status}" if answer.ending is Ending.FAILED else _broken_off(answer)


def _broken_off(answer: ClientAnswer) -> str:
    if answer.ending in {Ending.BROKEN, Ending.TIMEOUT}:
        return f"{answer.ending.value}: {answer.error or 'it stopped before its end'}"
    return ""


def contradictory(answer: ClientAnswer, _: Sequence[Sighting]) -> str:
    """Say what in a complete answer is not what its request asks for; "" where all of it is."""
    if answer.ending is not Ending.COMPLETE:
        return ""
    asked = answer.item.include_usage or not answer.item.stream
    if asked != bool(answer.prompt_tokens):
        return "usage was asked for and is not there" if asked else "usage that nobody asked for"
    if not answer.finish:
        return "no finish_reason"
    limit = answer.item.max_tokens
    if limit is not None and answer.completion_tokens > limit:
        return f"{answer.completion_tokens} completion tokens, max_tokens {limit}"
    return ""


def altered(answer: ClientAnswer, sightings: Sequence[Sighting]) -> str:
    """Say what is not as it was sent; "" where both bodies and the status are, or nothing came."""
    if not sightings or lost(answer, sightings):
        return ""
    last = sightings[-1]
    asked = last.request_hash == answer.asked_hash
    expected = answer.asked_hash if asked else answer.request_hash
    if any(seen.request_hash != expected for seen in sightings):
        return "the pool was sent another request body"
    if last.status != answer.status:
        return f"the pool answered {last.status}, the client got {answer.status}"
    same = (
        last.told_hash == answer.told_hash if asked else last.response_hash == answer.response_hash
    )
    return "" if same else "the client got another body"


def spread(values: Iterable[float]) -> Spread:
    """Return median and 99th percentile by nearest rank; nan where there is no value."""
    ordered = sorted(values)
    if not ordered:
        return Spread(0, math.nan, math.nan)
    p50, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))
    return Spread(len(ordered), p50, p99)
