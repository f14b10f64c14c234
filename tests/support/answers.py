"""Answers to all kinds of requests: tenants, beginnings, hints, several sequences, many models."""

import random
from collections.abc import Iterator

from msgspec import structs

from extproc.budget.calibrated import Calibrated
from extproc.budget.category import REPLACED, Labels, content_class
from extproc.budget.learner import Learner
from extproc.budget.measure import add, measure, measure_media, with_optional
from extproc.budget.paper import PaperEstimator
from extproc.budget.prior import MEASURED
from extproc.budget.values import Asked, Estimator, Observation, Outcome, Prefix
from extproc.request.conversation import DIGEST_CHARS as PREFIX_CHARS
from extproc.routing.tenant import DIGEST_CHARS

LIMITS = (1024, 4096)
SIZES = {"target": 0.001, "categories": 5, "tenants": 3, "models": 4, "prefixes": 40}
_TEXTS = (
    b"The owl sat still in the old barn, as owls do; nobody had noticed it. ",
    b"def run(self, x: int) -> None:\n    self._x = [y for y in x if y > 3]\n",
    "猫头鹰在谷仓里一动不动，没有人注意到它。".encode(),
)


def small_learner(estimator: Estimator | None = None, limits: tuple[int, ...] = LIMITS) -> Learner:
    """A learner whose every part is in use, and that has to forget."""
    calibrated = Calibrated(MEASURED, limits, **SIZES)
    return Learner(estimator or calibrated, Labels(4, REPLACED * 4))


def paper_estimator() -> PaperEstimator:
    return PaperEstimator(
        beta=0.95, gamma=1.0, prior_bytes_per_token=4.0, default_output_tokens=64, categories=3
    )


def answers(seed: int, number: int) -> Iterator[Observation]:
    draw = random.Random(seed)
    for _ in range(number):
        yield _answer(draw, _asked(draw))


def _asked(draw: random.Random) -> Asked:
    size = int(draw.lognormvariate(7.0, 1.2)) + 1
    text = (draw.choice(_TEXTS) * (size // 40 + 1))[:size]
    media = measure_media([(640, 480)], audios=draw.randrange(2)) if draw.random() < 0.05 else None
    found = measure(
        text[:2000], size, messages=draw.randint(1, 5), **({"media": media} if media else {})
    )
    if draw.random() < 0.1:
        found = with_optional(found, {"past_reasoning": 100.0})
    if draw.random() < 0.1:
        found = structs.replace(found, counted=size // 4)
    several = draw.random() < 0.1
    prefix = None
    if draw.random() < 0.3:
        turn = draw.randrange(60)
        prefix = Prefix(str(turn), str(turn - 1), rest=found, known=draw.random() < 0.3)
    return Asked(
        f"model{draw.choice((0, 0, 0, 1, 1, 2, draw.randrange(8)))}-x",
        content_class(found.features).value,
        found,
        draw.choice((None, 0, 16, 512)),
        sequences=4 if several else 1,
        whole=add(found, found, 3) if several else None,
        share=0.25 if several else 1.0,
        tenant=draw.choice(("", "a", "a", "b", str(draw.randrange(9)))),
        thinking=draw.choice(("", "", "high")),
        form=draw.choice(("", "", "shaped", "stops")),
        limit_is_hint=draw.random() < 0.3,
        prefix=prefix,
    )


def _answer(draw: random.Random, asked: Asked) -> Observation:
    # A model that counts otherwise, and a tenant whose text is dropped.
    ratio = 2.0 if asked.model.startswith("model1") else 4.2
    ratio = 9.0 if asked.tenant == "b" else ratio
    tokens = max(1, int(asked.every.text_bytes / ratio * draw.gauss(1.0, 0.05))) + 10
    if draw.random() < 0.001:
        tokens *= 1000
    output = max(1, int(draw.lognormvariate(4.0, 1.0)))
    outcome = draw.choice((Outcome.COMPLETE, Outcome.COMPLETE, Outcome.CUT, Outcome.REFUSED))
    stands = draw.choice((1, 1, 7, 20))
    return Observation(
        asked, outcome, draw.choice(LIMITS), tokens, output, stands, draw.random() < 0.9
    )


def sound_answers(seed: int, number: int) -> Iterator[Observation]:
    """Those whose digests have the length that the service gives them."""
    return map(_with_digests, answers(seed, number))


def _with_digests(seen: Observation) -> Observation:
    asked, prefix = seen.asked, seen.asked.prefix
    if prefix:
        prefix = structs.replace(
            prefix, whole=prefix.whole.zfill(PREFIX_CHARS), part=prefix.part.zfill(PREFIX_CHARS)
        )
    tenant = asked.tenant and asked.tenant.ljust(DIGEST_CHARS, "_")
    return structs.replace(seen, asked=structs.replace(asked, tenant=tenant, prefix=prefix))
