"""Steer the risk that one request may carry so that the share of misrouted requests is the target.

The *risk* of a request is the probability that it exceeds a limit, the window of a pool. Sending
requests to a pool if their risk is at most one level, the same for all requests and all limits,
misroutes the fewest for a given number sent to larger pools. The share of misrouted requests is
then the sum, over the limits, of the risks below the level. It is forecast from how many recent
requests had which risk, and corrected by how many of them really exceeded the limit. Answers of all
pools count, since a request that was sent long also shows whether it fits.

For example, of 10,000 requests 100 have a risk of about .02 and 100 one of about .2. A target of
.001 permits ten misroutes, of which `AIM` allows seven to be planned. The first hundred cost 2, the
second 20: the level lies between the two risks, and the second hundred are sent long.

Invariant: the level stays in [FLOOR, CEILING], whatever is reported.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Final

import msgspec

from extproc.budget.saved import Amount, Count, Growing

LEVELS: Final = (0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.06, 0.04, 0.025, 0.015, 0.008, 0.004, 0.002)
"""Risks between the bins, descending: bin 0 has the highest risks, the last bin the lowest."""
CEILING: Final = LEVELS[0]
FLOOR: Final = LEVELS[-1]
MEMORY: Final = 5000.0
AIM: Final = 0.7
"""The share of the target that is aimed at; the rest is for the noise of rare events."""
_BINS: Final = len(LEVELS) + 1
_PRIOR_REQUESTS: Final = 400.0
_PRIOR_SHARE: Final = 0.006  # of requests in each of the bins between the levels
_PRIOR_MEMORY: Final = 2000.0
"""The requests after which what is assumed before any was counted has faded: the five limits of six
pools would else take half of what the target permits."""
_PRIOR_EVENTS: Final = 4.0
"""The misroutes that a risk is trusted like: without a correction, what was forecast of the
scenarios was .4 to 2 times the truth, a deviation of half in its logarithm, and 1 / .5^2 = 4."""
EVIDENCE_MEMORY: Final = 20_000.0
"""Requests: of a target of .001 they have 14 misroutes, known to a quarter with those above."""
MOST_EVIDENCE: Final = 4.0
"""The factor by which evidence corrects a forecast at most, up or down."""
_RISK: Final = tuple(math.sqrt(a * b) for a, b in pairwise(LEVELS))
_STALE: Final = 8


_Bins = Annotated[list[Amount], msgspec.Meta(min_length=_BINS, max_length=_BINS)]


class SavedRisks(msgspec.Struct, frozen=True, array_like=True):
    """The risks of one limit in a snapshot."""

    limit: Count
    forecast: Amount
    weight: Growing
    prior: Amount
    requests: _Bins
    exceeded: _Bins


class SavedSteering(msgspec.Struct, frozen=True, array_like=True):
    """A steering in a snapshot."""

    target: Amount
    level: Annotated[float, msgspec.Meta(ge=FLOOR, le=CEILING)]
    stale: Count
    evidence: tuple[Amount, Amount, Amount]
    risks: Annotated[list[SavedRisks], msgspec.Meta(max_length=64)]


class Steering:
    """The level for one target, a share of all requests, over some limits.

    With a `parent`, a wider steering, it counts some of the parent's requests as its own, fewer the
    more it has counted.
    """

    def __init__(
        self, target: float, limits: Iterable[int], parent: "Steering | None" = None
    ) -> None:
        self._parent = parent
        self.risks: dict[int, Risks] = {}
        self._evidence = Evidence()
        self.retune(target, limits)

    def retune(self, target: float, limits: Iterable[int]) -> None:
        """Steer to another target, over other limits; retune the parent first.

        What was counted of a limit that stays is kept; a new limit begins as in a new service.
        """
        self.target = target
        wider: Mapping[int, Risks] = self._parent.risks if self._parent else {}
        self.risks = {limit: self.risks.get(limit) or Risks(wider.get(limit)) for limit in limits}
        self._stale = 0
        self._refresh()

    @property
    def level(self) -> float:
        """The highest risk with which a request is sent to a pool that is not the largest."""
        return self._level

    def forecast(self, limit: int | None = None) -> float:
        """Return the share of all requests that the level is expected to misroute.

        With `limit`, those that are expected to exceed that limit alone; 0 if it is none of ours.
        """
        found = self._forecasts
        share = sum(found.values()) if limit is None else found.get(limit, 0.0)
        return share * self._evidence.correction

    def count(self, *, misrouted: bool, share: float = 1.0, weight: float = 1.0) -> None:
        """Count a request that the level does or does not misroute; it may use a share of it."""
        forecast = share * sum(self._forecasts.values())
        self._evidence.count(forecast, misrouted=misrouted, weight=weight)

    def observe(self, limit: int, risk_bin: int, *, exceeds: bool, weight: float = 1.0) -> None:
        """Count a request of a bin of risk (0 to len(LEVELS)) that did or did not fit a limit."""
        self.risks[limit].observe(risk_bin, exceeds=exceeds, weight=weight)
        self._stale += 1
        if self._stale >= _STALE * len(self.risks):
            self._stale = 0
            self._refresh()

    def save(self) -> SavedSteering:
        """Return what is kept in a snapshot."""
        risks = [each.save(limit, self._forecasts[limit]) for limit, each in self.risks.items()]
        return SavedSteering(self.target, self._level, self._stale, self._evidence.save(), risks)

    def load(self, saved: SavedSteering) -> None:
        """Continue as the one that was saved, for the limits that both have."""
        self._evidence.load(saved.evidence)
        for each in saved.risks:
            if each.limit in self.risks:
                self.risks[each.limit].load(each)
        self._refresh()
        if [each.limit for each in saved.risks] == list(self.risks) and saved.target == self.target:
            self._level, self._stale = saved.level, saved.stale
            self._forecasts = {each.limit: each.forecast for each in saved.risks}

    def _refresh(self) -> None:
        # As shares of all requests, so that the limits add up.
        costs = {limit: risks.costs() for limit, risks in self.risks.items()}
        self._level = self._steer(list(costs.values()))
        self._forecasts = {
            limit: safe + _up_to(spent, self._level) for limit, (spent, safe) in costs.items()
        }

    def _steer(self, costs: list[tuple[list[float], float]]) -> float:
        # By the evidence no more than the target is misrouted, though more than is aimed at.
        allowed = min(AIM, 1.0 / self._evidence.correction) * self.target
        # Requests that exceed although they looked safe cannot be steered: up to half is theirs.
        left = max(allowed - sum(safe for _, safe in costs), allowed / 2)
        before = 0.0
        for index in range(len(_RISK) - 1, -1, -1):
            spent = sum(each[index] for each, _ in costs)
            if spent > left:
                share = (left - before) / (spent - before)
                return _between(LEVELS[index + 1], LEVELS[index], share)
            before = spent
        return CEILING


class Evidence:
    """How many recent requests were misrouted, and how many of them were forecast to be.

    It corrects what the forecast leaves out: risks that are not even within a bin, and requests
    that count at several limits although only one of them decides.
    """

    def __init__(self) -> None:
        self._forecast = 0.0
        self._misrouted = 0.0
        self._squares = 0.0

    def count(self, forecast: float, *, misrouted: bool, weight: float) -> None:
        """Count a request as `weight` of them, of which a share was forecast to be misrouted."""
        fade = math.exp(-weight / EVIDENCE_MEMORY)
        self._forecast = self._forecast * fade + weight * forecast
        self._misrouted = self._misrouted * fade + weight * misrouted
        self._squares = self._squares * fade + weight * weight * misrouted

    @property
    def correction(self) -> float:
        """The factor that a forecast is to be multiplied by.

        The mean of a rate with a gamma prior of mean 1, worth _PRIOR_EVENTS misroutes.
        """
        # A misroute that stands for several, since one in so many is seen, is one of those.
        usual = max(1.0, self._squares / self._misrouted) if self._misrouted else 1.0
        prior = _PRIOR_EVENTS * usual
        found = (self._misrouted + prior) / (self._forecast + prior)
        return max(1.0 / MOST_EVIDENCE, min(MOST_EVIDENCE, found))

    def save(self) -> tuple[float, float, float]:
        """Return what is kept in a snapshot."""
        return self._forecast, self._misrouted, self._squares

    def load(self, saved: tuple[float, float, float]) -> None:
        """Continue as the one that was saved."""
        self._forecast, self._misrouted, self._squares = saved


class Risks:
    """How many recent requests had which risk of exceeding one limit, and how many did."""

    def __init__(self, parent: "Risks | None" = None) -> None:
        self._parent = parent
        self._growth = 1.0 + 1.0 / MEMORY
        self._weight = 1.0
        self._prior = _PRIOR_REQUESTS
        self._requests = [0.0] * _BINS
        self._exceeded = [0.0] * _BINS

    def observe(self, risk_bin: int, *, exceeds: bool, weight: float) -> None:
        """Count a request as `weight` of them; earlier ones lose a little weight."""
        self._requests[risk_bin] += weight * self._weight
        self._exceeded[risk_bin] += weight * self._weight * exceeds
        self._prior *= math.exp(-weight / _PRIOR_MEMORY)
        self._weight *= self._growth
        if self._weight > 1e9:
            self._rescale()

    def save(self, limit: int, forecast: float) -> SavedRisks:
        """Return what is kept in a snapshot."""
        return SavedRisks(
            limit, forecast, self._weight, self._prior, self._requests, self._exceeded
        )

    def load(self, saved: SavedRisks) -> None:
        """Continue as the risks that were saved."""
        self._weight, self._prior = saved.weight, saved.prior
        self._requests, self._exceeded = list(saved.requests), list(saved.exceeded)

    def costs(self) -> tuple[list[float], float]:
        """Return the misroutes to expect, as shares of all requests.

        First, for each bin between the levels, those if it and all bins of lower risk are taken;
        then those of the bin below all levels, which always is. What is expected of the bins is
        corrected by what happened in them, and where little did, by what happened in all bins.
        """
        seen, exceeded = self.counted()
        assumed = self._prior
        total = sum(seen) + assumed
        bins = list(zip(_RISK, seen[1:-1], exceeded[1:-1], strict=True))
        usual = _correction(sum(x for _, _, x in bins), sum(r * n for r, n, _ in bins), 1.0)
        spent, most = list[float](), 0.0
        expected = happened = prior = 0.0
        for risk, requests, events in reversed(bins):
            expected, happened = expected + risk * requests, happened + events
            prior += risk * assumed * _PRIOR_SHARE
            correction = _correction(happened, expected, usual)
            most = max(most, correction * (expected + prior) / total)
            spent.append(most)
        return spent[::-1], exceeded[-1] / total

    def counted(self) -> tuple[list[float], list[float]]:
        """Return the requests and those that exceeded, by bin, with what the parent lends."""
        requests = [n / self._weight for n in self._requests]
        exceeded = [n / self._weight for n in self._exceeded]
        if self._parent is None:
            return requests, exceeded
        wider = self._parent.counted()
        lent = _PRIOR_REQUESTS * _PRIOR_REQUESTS / (_PRIOR_REQUESTS + sum(requests))
        scale = min(1.0, lent / max(sum(wider[0]), 1.0))
        return (
            [n + scale * w for n, w in zip(requests, wider[0], strict=True)],
            [n + scale * w for n, w in zip(exceeded, wider[1], strict=True)],
        )

    def _rescale(self) -> None:
        self._requests = [n / self._weight for n in self._requests]
        self._exceeded = [n / self._weight for n in self._exceeded]
        self._weight = 1.0


def _up_to(spent: Sequence[float], level: float) -> float:
    """Return what is spent up to a level, which may lie within a bin."""
    index = next((i for i, low in enumerate(LEVELS[1:]) if low < level), len(spent) - 1)
    low, high = LEVELS[index + 1], LEVELS[index]
    before = (*spent, 0.0)[index + 1]
    return before + (spent[index] - before) * math.log(level / low) / math.log(high / low)


def _correction(happened: float, expected: float, usual: float) -> float:
    found = (happened + _PRIOR_EVENTS * usual) / (expected + _PRIOR_EVENTS)
    return max(0.5, min(4.0, found))


def _between(low: float, high: float, share: float) -> float:
    return float(low * (high / low) ** share)
