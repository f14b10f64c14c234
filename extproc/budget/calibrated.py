"""The estimator that keeps a promise: at most a target share of requests is misrouted.

    prompt   a linear model of the prompt's features, per model name (`weights`)
    spread   its standardised errors, per category <- model <- all (`sketch`)
    output   completion tokens if no limit is stated, per category and size of the prompt
    level    the risk that one request may carry, per limit of a pool (`steering`)

Invariant: an answer is judged by the state before it, so that every figure of coverage is out of
sample.

A worked example, for a request without an output limit that is compared with 8192 tokens: the
weights predict 3,000 prompt tokens with a deviation of 90; the level is 0.02. Two in a hundred
standardised errors exceed 2.3, so the prompt's margin is 207 over its median of 0. The category's
outputs have the median 200 and exceed 3,200 twice in a hundred. The two errors are independent:
the total is 3,000 + 200 + hypot(207, 3,000) = 6,207, and the request goes to the short pool.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from extproc.budget.bounded import BoundedMap
from extproc.budget.category import OTHER, OTHER_MODELS
from extproc.budget.sketch import Counts, Scores, Sketch, count_prior, score_prior
from extproc.budget.states import (
    OUTPUT_MEMORY,
    SCORE_MEMORY,
    SIZES,
    CategoryKey,
    CategoryState,
    Distributions,
    ModelState,
    add_output,
)
from extproc.budget.steering import LEVELS, Steering
from extproc.budget.tenants import Tenant, Tenants
from extproc.budget.values import Asked, Basis, Budget, Figures, Learnt, Observation, Outcome
from extproc.budget.weights import Prediction, Prior, TokenWeights, oddity
from extproc.tokens import MAX_TOKENS

CALIBRATED_FROM: Final = 50
"""Observations from which on the estimates of a category are called calibrated."""
MODELS: Final = 64
"""The most sets of weights: one for each model name, the last for all further names."""
_NOTHING: Final = Learnt()


@dataclass(frozen=True, slots=True)
class _Known:
    """The states that a request is estimated from; a key is None if they stand for all others."""

    model_key: str | None
    model: ModelState
    category_key: CategoryKey | None
    category: CategoryState
    tenant: Tenant | None
    """None if tenants are not told apart."""
    steering: Mapping[int, Steering]

    @property
    def weights(self) -> TokenWeights:
        """The weights that predict the prompt."""
        own = self.tenant.fit.own if self.tenant else None
        return own or self.model.weights

    @property
    def distributions(self) -> Distributions:
        """The errors and outputs that the request is expected to have."""
        return self.tenant.state if self.tenant else self.category


class Calibrated:
    """Budgets for all models and categories; one per process. Not thread-safe."""

    def __init__(
        self,
        prior: Prior,
        limits: tuple[int, ...],
        *,
        target: float,
        categories: int,
        tenants: int = 1,
    ) -> None:
        """Take the limits, in tokens, that budgets will be compared with.

        `target` is the share of all requests, and of those of each tenant, that may be misrouted at
        each of them. Beyond `categories` categories, `tenants` tenants or MODELS models, further
        ones are treated as one, `other`.
        """
        self._prior = prior
        self._scores = Sketch(Scores(), score_prior(), SCORE_MEMORY)
        self._outputs = Sketch(Counts(), count_prior(), OUTPUT_MEMORY)
        self._models: BoundedMap[str, ModelState] = BoundedMap(MODELS - 1)
        self._categories: BoundedMap[CategoryKey, CategoryState] = BoundedMap(categories)
        self._other_model: ModelState | None = None
        self._other_categories: dict[str | None, CategoryState] = {}
        self._steering = {limit: Steering(target) for limit in limits}
        self._tenants = Tenants(tenants, self._steering)
        self._unseen: tuple[tuple[str, str, str], _Known] | None = None  # until the next answer

    def budget(self, asked: Asked, limit: int) -> Budget:
        """Return a budget that keeps the target if it is compared with `limit`."""
        known = self._find(asked)
        found = known.weights.predict(asked.measure)
        level = known.steering[limit].level * _evidence(known.distributions)
        total, output = _reserve(asked, found, known.distributions, level)
        prompt = round(found.tokens) + asked.measure.token_ids
        return Budget(prompt, math.ceil(total) - prompt - output, output, _basis(known))

    def observe(self, observation: Observation) -> None:
        """Learn from an answer, unless no tokenizer can have counted what it states."""
        asked, known = observation.asked, self._find(observation.asked)
        self._unseen = None
        if observation.outcome is Outcome.REFUSED:
            self._judge_refusal(observation, known)
            return
        tokens = observation.prompt_tokens - asked.every.token_ids
        weights = known.weights
        if not _is_possible(observation) or not weights.plausible(asked.every, tokens):
            return
        share = self._keep(known)
        largest = weights.predict(asked.measure)
        self._judge(observation, known, largest, share)
        every = weights.predict(asked.every)
        score = every.score(tokens)
        for scores in (known.category.scores, known.model.scores, self._scores):
            scores.add(score, share)
        if asked.output_limit != 0:
            self._learn_output(observation, known, _size_class(asked, largest), share)
        weights.learn(asked.every, tokens)
        if known.tenant:
            known.tenant.state.add_score(score, weights)
            if weights is known.model.weights:
                known.tenant.fit.compare(weights, oddity(score, every.deviation))

    def learnt(self) -> Learnt:
        """Return figures per category, per model, and per limit: its level and its forecast."""
        return Learnt.merged(self.learnt_parts())

    def learnt_parts(self) -> Iterator[Learnt]:
        """Yield the parts of `learnt`; more may be learnt between two of them."""
        for (model, category), state in self._all_categories():
            name = f"{category}/{OTHER_MODELS if model is None else model}"
            yield Learnt(categories={name: _category_figures(state)})
        for name, model_state in self._all_models():
            yield Learnt(models={name: _model_figures(model_state)})
        for limit, steering in self._steering.items():
            tenants = list[_Steered]()
            for recent, own in self._tenants.steerings(limit):
                tenants.append(_Steered(recent, own.forecast(), own.level))
                yield _NOTHING  # so that no part takes long, however many tenants there are
            yield Learnt(limits={str(limit): _limit_figures(steering, tenants)})
        yield Learnt(evicted=self._categories.evicted, tenants=self._tenants.figures())

    def _all_models(self) -> list[tuple[str, ModelState]]:
        other = [(OTHER_MODELS, self._other_model)] if self._other_model else []
        return [*self._models.items(), *other]

    def _all_categories(self) -> list[tuple[CategoryKey, CategoryState]]:
        others = [((model, OTHER), state) for model, state in self._other_categories.items()]
        return [*self._categories.items(), *others]

    def _find(self, asked: Asked) -> _Known:
        """Return what is known. States that are new are kept only once an answer taught them."""
        asked_key = (asked.model, asked.category, asked.tenant)
        if self._unseen and self._unseen[0] == asked_key:
            return self._unseen[1]
        model_key, found = self._find_model(asked.model)
        model = found or ModelState(self._prior, self._scores, self._outputs)
        category_key, kept = self._find_category((model_key, asked.category))
        category = kept or CategoryState(model)
        tenant = None
        if asked.tenant:
            key = category_key or (model_key, OTHER)
            tenant = self._tenants.find(asked.tenant, key, category)
        steering = tenant.account.steering if tenant else self._steering
        known = _Known(model_key, model, category_key, category, tenant, steering)
        if not known.distributions.observations:
            self._unseen = asked_key, known
        return known

    def _find_model(self, name: str) -> tuple[str | None, ModelState | None]:
        if self._models.has_room(name):
            return name, self._models.get(name)
        return None, self._other_model

    def _find_category(self, key: CategoryKey) -> tuple[CategoryKey | None, CategoryState | None]:
        if self._categories.has_room(key):
            return key, self._categories.get(key)
        return None, self._other_categories.get(key[0])

    def _keep(self, known: _Known) -> float:
        """Keep states that may be new; return the weight of the answer in what tenants share."""
        # Only an answer gets here: a client cannot push out what was learnt by inventing names.
        if known.model_key is None:
            self._models.pass_by()
            self._other_model = known.model
        else:
            self._forget(self._models.touch(known.model_key, known.model))
        if known.category_key is None:
            self._categories.pass_by()
            self._other_categories[known.model_key] = known.category
        elif gone := self._categories.touch(known.category_key, known.category):
            self._tenants.forget(gone)
        return self._tenants.keep(known.tenant) if known.tenant else 1.0

    def _forget(self, model: str | None) -> None:
        if model is None:
            return
        for key in [key for key, _ in self._categories.items() if key[0] == model]:
            self._categories.drop(key)
            self._tenants.forget(key)
        self._other_categories.pop(model, None)
        self._tenants.forget((model, OTHER))
        self._tenants.forget_fits(model)

    def _judge(self, seen: Observation, known: _Known, found: Prediction, share: float) -> None:
        budgets = [self.budget(seen.asked, limit) for limit in self._steering]
        covered = all(seen.needed <= budget.tokens for budget in budgets)
        known.category.record.add(seen, budgets[0], covered=covered)
        for limit, common in self._steering.items():
            exceeds, bin_ = seen.needed > limit, _risk_bin(seen.asked, limit, found, known)
            common.observe(bin_, exceeds=exceeds, weight=share)
            if known.tenant:
                known.steering[limit].observe(bin_, exceeds=exceeds)

    def _judge_refusal(self, seen: Observation, known: _Known) -> None:
        # Refusals do not teach the common steering of tenants: nothing bounds how many one causes.
        found = known.weights.predict(seen.asked.measure)
        for limit, steering in known.steering.items():
            if limit <= seen.limit:
                steering.observe(_risk_bin(seen.asked, limit, found, known), exceeds=True)

    def _learn_output(self, seen: Observation, known: _Known, size: int, share: float) -> None:
        category = known.category
        for outputs in (category.by_size[size], category.outputs, known.model.outputs):
            add_output(outputs, seen, share)
        add_output(self._outputs, seen, share)
        if known.tenant:
            add_output(known.tenant.state.by_size[size], seen)
            add_output(known.tenant.state.outputs, seen)


def _evidence(category: Distributions) -> float:
    """Return the share of the level that a category may use: a fifth at first, then all."""
    return min(1.0, 0.2 + 0.8 * category.observations / CALIBRATED_FROM)


def _reserve(
    asked: Asked, found: Prediction, category: Distributions, level: float
) -> tuple[float, int]:
    """Return the total that a share of `level` exceeds, and the output's part in it, in tokens.

    Invariant: the total never falls while the level falls; `_risk_bin` relies on it.
    """
    known = asked.measure.token_ids + found.tokens
    margin = category.scores.upper(level) * found.deviation
    if asked.output_limit is not None:
        return known + margin + asked.output_limit, asked.output_limit
    outputs = category.by_size[_size_class(asked, found)]
    # The longest of n outputs exceeds a length about n times as often as one does.
    middle, high = (
        max(asked.output_floor, outputs.upper(share / asked.sequences)) for share in (0.5, level)
    )
    centre = category.scores.upper(0.5) * found.deviation
    # Independent errors: distances from the medians add up as the root of their squares.
    return known + centre + middle + math.hypot(margin - centre, high - middle), round(high)


def _risk_bin(asked: Asked, limit: int, found: Prediction, known: _Known) -> int:
    """Count the levels at which the request fits the limit: its risk is below each of them."""
    low, high, category = 0, len(LEVELS), known.distributions
    while low < high:
        middle = (low + high) // 2
        total, _ = _reserve(asked, found, category, LEVELS[middle] * _evidence(category))
        low, high = (middle + 1, high) if math.ceil(total) <= limit else (low, middle)
    return low


def _size_class(asked: Asked, found: Prediction) -> int:
    prompt = int(found.tokens) + asked.measure.token_ids
    return max(0, min(SIZES - 1, prompt.bit_length() - 9))


def _basis(known: _Known) -> Basis:
    if known.distributions.observations >= CALIBRATED_FROM:
        return Basis.CALIBRATED
    return Basis.BORROWED if known.weights.observations else Basis.PRIOR


def _is_possible(seen: Observation) -> bool:
    return 0 < seen.prompt_tokens < MAX_TOKENS and 0 <= seen.completion_tokens < MAX_TOKENS


class _Steered(NamedTuple):
    """A tenant's recent answers, and what its steering says."""

    recent: float
    forecast: float
    level: float


def _limit_figures(common: Steering, tenants: Sequence[_Steered]) -> Figures:
    """Return the figures of a limit: means over recent answers if tenants are told apart."""
    steered = tenants or [_Steered(1.0, common.forecast(), common.level)]
    total = sum(each.recent for each in steered)
    figures: Figures = {
        "target": common.target,
        "misroute_forecast": sum(each.recent / total * each.forecast for each in steered),
        "risk_level": sum(each.recent / total * each.level for each in steered),
    }
    # The least certain of them: a mean over all would hide one tenant that fares badly.
    return figures | (
        {"tenant_forecast_max": max(each.forecast for each in tenants)} if tenants else {}
    )


def _model_figures(model: ModelState) -> Figures:
    weights = model.weights
    return {
        "samples": weights.observations,
        "surprise": weights.surprise,
        **{f"template_{name}": tokens for name, tokens in weights.template().items()},
    }


def _category_figures(category: CategoryState) -> Figures:
    record, seen = category.record, category.observations
    return {
        "basis": (Basis.CALIBRATED if seen >= CALIBRATED_FROM else Basis.BORROWED).value,
        "samples": seen,
        "bytes_per_token": record.bytes_per_token,
        "relative_error": record.error,
        "relative_margin": record.margin,
        "covered": record.covered,
        "completion_tokens_p50": category.outputs.upper(0.5),
        "completion_tokens_p99": category.outputs.upper(0.01),
    }
