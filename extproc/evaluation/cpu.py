"""Measure the CPU time of an estimate and of an observation, as the best of several rounds.

An estimate is everything from the bytes of a body to the choice of a pool, under the settings.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

from extproc.budget.learner import Learner
from extproc.build import build_learner, build_rules
from extproc.config.settings import EstimatorName, Settings
from extproc.evaluation.cases import Case
from extproc.evaluation.replay import LONG_POOL, answer
from extproc.evaluation.rivals import EXACT, OURS, STATIC, static_settings
from extproc.evaluation.texts import Text
from extproc.evaluation.tokenizer import TextTokenizer
from extproc.request.apis import Endpoint
from extproc.request.reader import read_request
from extproc.routing.route import Rules, route

SIZES: Final = (4096, 262_144)
"""Bytes of the prompt."""
_ROUNDS: Final = 7
_ROUND_S: Final = 0.004


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Microseconds of CPU: the median over the classes of text, and the most expensive class."""

    estimator: str
    prompt_bytes: int
    estimate: float
    dearest: float
    dearest_class: str
    observation: float


def measure_costs(
    settings: Settings, texts: Sequence[Text], tokenizer: TextTokenizer, cases: Sequence[Case]
) -> tuple[Cost, ...]:
    """Time reading alone, estimators that have learnt `cases`, and an exact tokenizer."""
    rules = build_rules(settings)
    learners = {
        STATIC: build_learner(static_settings(settings), name=EstimatorName.PAPER),
        OURS: build_learner(settings, name=EstimatorName.CALIBRATED),
    }
    for learner in learners.values():
        _teach(learner, cases)
    found = []
    for size in SIZES:
        bodies = {each.kind: _body(each.text, size, tokenizer.name) for each in texts}
        found.append(_cost("reading alone", size, bodies, _read))
        for name, learner in learners.items():
            act, observe = _router(learner, rules), _observe(learner, cases)
            found.append(_cost(name, size, bodies, act, observe))
        found.append(_cost(EXACT, size, bodies, _counter(tokenizer)))
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
    # At least 1 us: the clock may not have moved.
    once = max(time.process_time_ns() - start, 1000)
    repeats = max(1, int(_ROUND_S * 1e9 / once))
    # The minimum: other work on the machine only ever adds.
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


def _router(learner: Learner, rules: Rules) -> Callable[[bytes], object]:
    return lambda body: route(read_request(Endpoint.CHAT, body), "", learner, rules)


def _counter(tokenizer: TextTokenizer) -> Callable[[bytes], object]:
    def count(body: bytes) -> None:
        for message in json.loads(body)["messages"]:
            tokenizer.count(message["content"])

    return count


def _teach(learner: Learner, cases: Sequence[Case]) -> None:
    for case in cases:
        learner.learn(answer(case, LONG_POOL))


def _observe(learner: Learner, cases: Sequence[Case]) -> Callable[[], object]:
    lesson = answer(cases[-1], LONG_POOL)
    return lambda: learner.learn(lesson)
