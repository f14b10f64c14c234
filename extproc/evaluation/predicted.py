"""Compare what predicts completion tokens: `dualpool evaluate --outputs`.

Prompts are exact here and nobody states a limit, so that the output alone decides whether a request
fits. Every predictor is asked before it is told the output.

    category           one distribution for all requests
    sizes              one for each size of prompt
    kinds and sizes    one for each kind of request and size of prompt, as the service has
    oracle             knows the output

A predictor is as good as it ranks requests by their risk: those of the lowest risk are sent short,
as many as misroute the target. The level is chosen afterwards, so that no steering blurs it.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

from msgspec import structs

from extproc.budget.outputs import Outputs, output_kind, size_class
from extproc.budget.sketch import Sketch
from extproc.budget.values import Asked, Measure, Observation, Outcome
from extproc.evaluation.lengths import Draw, DrawnLength, draw_azure, read_lengths
from extproc.evaluation.options import WARM_UP, EvaluateOptions
from extproc.evaluation.scenarios import THINKING, THINKING_SHARE
from extproc.progress import Show
from extproc.request.thinking import Thinking

REQUESTS: Final = 50_000
LEVEL: Final = 0.05
"""The share of outputs that a prediction may fall short of."""

PLAIN: Final = Asked("", "", Measure(0), None)
"""A request that states nothing."""
_BUILT_IN: Final[dict[str, Draw]] = {"Azure 2023 with a longer tail": draw_azure}


class _Thinking(NamedTuple):
    share: float
    is_stated: bool


_THOUGHTS: Final = {
    "": _Thinking(0.0, is_stated=False),
    f", {THINKING_SHARE:.0%} think and say so": _Thinking(THINKING_SHARE, is_stated=True),
    f", {THINKING_SHARE:.0%} think and do not say so": _Thinking(THINKING_SHARE, is_stated=False),
}
"""What is added to the lengths of a file, by what is added to its name."""


class Request(NamedTuple):
    """What a predictor sees of a request, and its lengths."""

    asked: Asked
    length: DrawnLength


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedResult:
    """A predictor on one traffic. Shares are of the counted requests.

    exceeded: outputs longer than the quantile that a share LEVEL of them should exceed. reserved:
    its mean in tokens. over_routed: by threshold in tokens, the share that fits and is sent long if
    `target` of all are misrouted.
    """

    traffic: str
    predictor: str
    requests: int
    target: float
    exceeded: float
    reserved: float
    over_routed: dict[int, float]


class Predictor(Protocol):
    """Predicts completion tokens."""

    def exceeding(self, request: Request, room: int) -> float:
        """Return the probability that the output exceeds so many tokens."""

    def upper(self, request: Request) -> float:
        """Return the tokens that a share LEVEL of such outputs exceeds."""

    def learn(self, request: Request) -> None:
        """Learn the output."""


class Learnt:
    """The distributions of the service, or as much of them as is asked."""

    def __init__(self, *, kinds: bool, sizes: bool) -> None:
        """Tell kinds of requests, and sizes of prompts, apart or not."""
        self._kinds, self._sizes = kinds, sizes
        self._outputs = Outputs()

    def exceeding(self, request: Request, room: int) -> float:
        """See `Predictor`."""
        return self._find(request).exceeding(room)

    def upper(self, request: Request) -> float:
        """See `Predictor`."""
        return self._find(request).upper(LEVEL)

    def learn(self, request: Request) -> None:
        """See `Predictor`."""
        asked, (prompt, output) = self._asked(request), request.length
        seen = Observation(asked, Outcome.COMPLETE, 0, prompt, output)
        self._outputs.add(output_kind(asked), self._size(request), seen, 1.0)

    def _find(self, request: Request) -> Sketch:
        return self._outputs.find(output_kind(self._asked(request)), self._size(request))

    def _asked(self, request: Request) -> Asked:
        return request.asked if self._kinds else structs.replace(request.asked, thinking="")

    def _size(self, request: Request) -> int:
        return size_class(request.length.prompt) if self._sizes else 0


class Oracle:
    """Knows the output."""

    def exceeding(self, request: Request, room: int) -> float:
        """See `Predictor`."""
        return float(request.length.output > room)

    def upper(self, request: Request) -> float:
        """See `Predictor`."""
        return request.length.output

    def learn(self, request: Request) -> None:
        """See `Predictor`."""


PREDICTORS: Final[dict[str, Callable[[], Predictor]]] = {
    "category": partial(Learnt, kinds=False, sizes=False),
    "sizes": partial(Learnt, kinds=False, sizes=True),
    "kinds and sizes": partial(Learnt, kinds=True, sizes=True),
    "oracle": Oracle,
}


def run_predicted(
    options: EvaluateOptions, thresholds: Sequence[int], target: float, show: Show
) -> tuple[PredictedResult, ...]:
    """Try every predictor on each file of lengths: plain, and with requests that think."""
    draws = {file.stem: read_lengths((file,)) for file in options.lengths} or _BUILT_IN
    show.begin("Predicting outputs", len(draws) * len(_THOUGHTS))
    found: list[PredictedResult] = []
    for name, draw in draws.items():
        for title, thinking in _THOUGHTS.items():
            rng = random.Random(options.seed)  # noqa: S311 - reproducible, not secret
            made = [_request(rng, draw, thinking) for _ in range(options.requests or REQUESTS)]
            found += predict(name + title, made, thresholds, target)
            show.advance()
    return tuple(found)


def _request(rng: random.Random, draw: Draw, thinking: _Thinking) -> Request:
    length, thinks = draw(rng), rng.random() < thinking.share
    if thinks:
        length = length._replace(output=THINKING(rng).output)
    stated = (Thinking.HIGH if thinks else Thinking.OFF) if thinking.is_stated else Thinking("")
    return Request(structs.replace(PLAIN, thinking=stated.value), length)


def predict(
    traffic: str, requests: Sequence[Request], thresholds: Iterable[int], target: float
) -> Iterator[PredictedResult]:
    """Try every predictor on the requests, in their order."""
    for name, build in PREDICTORS.items():
        predictor, counted = build(), requests[WARM_UP:]
        exceeded, reserved = 0, 0.0
        risks: dict[int, list[tuple[float, bool]]] = {each: [] for each in thresholds}
        for number, request in enumerate(requests):
            if number >= WARM_UP:
                upper, (prompt, output) = predictor.upper(request), request.length
                exceeded, reserved = exceeded + (output > upper), reserved + upper
                for threshold, found in risks.items():
                    # A prompt that leaves no room is sent long by every predictor.
                    if (room := threshold - prompt) > 0:
                        found.append((predictor.exceeding(request, room), output <= room))
            predictor.learn(request)
        yield PredictedResult(
            traffic=traffic,
            predictor=name,
            requests=len(counted),
            target=target,
            exceeded=exceeded / len(counted),
            reserved=reserved / len(counted),
            over_routed={
                threshold: over_routed(found, target * len(counted)) / len(counted)
                for threshold, found in risks.items()
            },
        )


def over_routed(risks: Iterable[tuple[float, bool]], misrouted: float) -> float:
    """Return how many requests that fit are sent long, if so many that do not are sent short.

    `risks`: of each request, the risk and whether it fits. Those of the lowest risk are sent short;
    of requests with one risk, a part.
    """
    left, long = misrouted, 0.0
    for _, group in groupby(sorted(risks, key=itemgetter(0)), key=itemgetter(0)):
        fits = [each for _, each in group]
        fitting, exceeding = sum(fits), len(fits) - sum(fits)
        sent = min(1.0, max(left, 0.0) / exceeding) if exceeding else float(left >= 0.0)
        long += (1.0 - sent) * fitting
        # Once a part of a group is sent long, so are all of a higher risk.
        left = left - exceeding if sent == 1.0 else -1.0
    return long
