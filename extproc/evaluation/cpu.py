"""What an estimate and an observation cost: CPU time of this process, best of several rounds.

An estimate is all that the service does from a body's bytes to the choice of a pool.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

from extproc.budget.category import Labels
from extproc.budget.learner import Learner
from extproc.budget.values import Estimator, Observation, Outcome
from extproc.evaluation.cases import Case
from extproc.evaluation.options import LONG
from extproc.evaluation.rivals import OURS, calibrated, static
from extproc.evaluation.texts import Text
from extproc.evaluation.tokenizer import Tokenizer
from extproc.request.reader import MAX_BODY_BYTES, Endpoint, read_request
from extproc.routing.pools import Pool
from extproc.routing.route import Rules, route

SIZES: Final = (4096, 262_144)
"""Bytes of the prompt."""
_THRESHOLD: Final = 8192
_ROUNDS: Final = 7
_ROUND_S: Final = 0.004


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Microseconds of CPU, the median over the classes of text, and the dearest class."""

    estimator: str
    prompt_bytes: int
    estimate: float
    dearest: float
    dearest_class: str
    observation: float


def measure_costs(
    texts: Sequence[Text], tokenizer: Tokenizer, cases: Sequence[Case]
) -> tuple[Cost, ...]:
    """Time reading alone, then estimators that have learnt `cases`, and an exact tokenizer."""
    found = []
    for size in SIZES:
        bodies = {each.kind: _body(each.text, size, tokenizer.name) for each in texts}
        found.append(_cost("reading alone", size, bodies, _read))
        for name, estimator in (("static 4.0", static()), (OURS, calibrated(_THRESHOLD))):
            learner = _taught(estimator, cases)
            found.append(_cost(name, size, bodies, _router(learner), _observe(learner, cases)))
        found.append(_cost("exact tokenizer", size, bodies, _counter(tokenizer)))
    return tuple(found)


def _cost(
    name: str,
    size: int,
    bodies: dict[str, bytes],
    act: Callable[[bytes], object],
    observe: Callable[[], object] | None = None,
) -> Cost:
    times = {kind: _microseconds(partial(act, body)) for kind, body in bodies.items()}
    dearest = max(times, key=lambda kind: times[kind])
    return Cost(
        estimator=name,
        prompt_bytes=size,
        estimate=median(times.values()),
        dearest=times[dearest],
        dearest_class=dearest,
        observation=_microseconds(observe) if observe else 0.0,
    )


def _microseconds(act: Callable[[], object]) -> float:
    start = time.process_time_ns()
    act()
    once = max(time.process_time_ns() - start, 1000)
    repeats = max(1, int(_ROUND_S * 1e9 / once))
    return min(_round(act, repeats) for _ in range(_ROUNDS))


def _round(act: Callable[[], object], repeats: int) -> float:
    start = time.process_time_ns()
    for _ in range(repeats):
        act()
    return (time.process_time_ns() - start) / repeats / 1000


def _body(text: str, size: int, model: str) -> bytes:
    data = text.encode()
    prompt = (data * (size // len(data) + 1))[:size].decode(errors="ignore")
    messages = [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": prompt},
    ]
    body = {"model": model, "messages": messages, "max_tokens": 256}
    return json.dumps(body, ensure_ascii=False).encode()


def _read(body: bytes) -> object:
    return read_request(Endpoint.CHAT, body)


def _router(learner: Learner) -> Callable[[bytes], object]:
    pools = (Pool("short", _THRESHOLD, _THRESHOLD), Pool("long", LONG, LONG))
    rules = Rules(pools, "", MAX_BODY_BYTES, 0)
    return lambda body: route(read_request(Endpoint.CHAT, body), "", learner, rules)


def _counter(tokenizer: Tokenizer) -> Callable[[bytes], object]:
    def count(body: bytes) -> None:
        for message in json.loads(body)["messages"]:
            tokenizer.count(message["content"])

    return count


def _taught(estimator: Estimator, cases: Sequence[Case]) -> Learner:
    learner = Learner(estimator, Labels(64))
    for case in cases:
        learner.learn(_observation(case))
    return learner


def _observe(learner: Learner, cases: Sequence[Case]) -> Callable[[], object]:
    lesson = _observation(cases[-1])
    return lambda: learner.learn(lesson)


def _observation(case: Case) -> Observation:
    return Observation(
        case.asked, Outcome.COMPLETE, _THRESHOLD, case.prompt_tokens, case.completion_tokens
    )
