"""The estimator that keeps a promise: at most a target share of requests is misrouted.

    prompt   a linear model of the prompt's features, per model name (`weights`)
    spread   its standardised errors, per category <- model <- all (`sketch`)
    output   completion tokens where no limit is stated, per category and size of the prompt
    level    the risk that one request may carry, per limit of a pool (`steering`)

The rule kept here: what an answer teaches is judged by the state before it, so that every figure
of coverage is out of sample.
"""

import math
from collections import OrderedDict
from typing import Final

from extproc.budget.sketch import Counts, Scores, Sketch, count_prior, score_prior
from extproc.budget.steering import LEVELS, Steering
from extproc.budget.values import Asked, Basis, Budget, Figures, Learnt, Observation, Outcome
from extproc.budget.weights import Prediction, Prior, TokenWeights

CALIBRATED_FROM: Final = 50
"""Observations of a category from which on its estimates are called calibrated."""
MODELS: Final = 64
"""Model names that are kept; what was least recently taught is forgotten beyond them."""
SCORE_MEMORY: Final = 1000.0
OUTPUT_MEMORY: Final = 1500.0
MAX_TOKENS: Final = 1 << 31
_SIZES: Final = 6  # prompts below 512, 1024, 2048, 4096, 8192 tokens, and longer ones


class _Record:
    """Running means of how a category fares, for people; nothing is decided by them."""

    def __init__(self) -> None:
        self.bytes_per_token = 0.0
        self.error = 0.0
        self.margin = 0.0
        self.covered = 0.0
        self._seen = 0

    def add(self, seen: Observation, budget: Budget, *, covered: bool) -> None:
        """Count an answer, held against the budget that it would have had."""
        self._seen = min(self._seen + 1, 1000)
        share, tokens = 1.0 / self._seen, seen.prompt_tokens
        ratio = seen.asked.measure.text_bytes / tokens
        self.bytes_per_token += share * (ratio - self.bytes_per_token)
        self.error += share * (abs(budget.prompt_tokens / tokens - 1.0) - self.error)
        self.margin += share * (budget.margin_tokens / tokens - self.margin)
        self.covered += share * (covered - self.covered)


class _Category:
    """What is known of one category of one model."""

    def __init__(self, scores: Sketch, outputs: Sketch) -> None:
        self.scores = Sketch(Scores(), scores, SCORE_MEMORY)
        self.outputs = Sketch(Counts(), outputs, OUTPUT_MEMORY)
        self.by_size = [Sketch(Counts(), self.outputs, OUTPUT_MEMORY) for _ in range(_SIZES)]
        self.record = _Record()

    @property
    def observations(self) -> int:
        return self.scores.observations


class _Model:
    """What is known of one model name."""

    def __init__(self, prior: Prior, scores: Sketch, outputs: Sketch) -> None:
        self.weights = TokenWeights(prior)
        self.scores = Sketch(Scores(), scores, SCORE_MEMORY)
        self.outputs = Sketch(Counts(), outputs, OUTPUT_MEMORY)


class Calibrated:
    """Budgets for all models and categories; one per process. Not thread-safe."""

    def __init__(
        self, prior: Prior, limits: tuple[int, ...], *, target: float, categories: int
    ) -> None:
        """Take the limits, in tokens, that budgets will be held against.

        `target` is the share of all requests that may be misrouted at each of them. Of more than
        `categories` the least recently taught is forgotten.
        """
        self._prior = prior
        self._most = categories
        self._scores = Sketch(Scores(), score_prior(), SCORE_MEMORY)
        self._outputs = Sketch(Counts(), count_prior(), OUTPUT_MEMORY)
        self._models: OrderedDict[str, _Model] = OrderedDict()
        self._categories: OrderedDict[tuple[str, str], _Category] = OrderedDict()
        self._steering = {limit: Steering(target) for limit in limits}

    def budget(self, asked: Asked, limit: int) -> Budget:
        """Reserve so that what exceeds the budget and is held against `limit` meets the target."""
        model, category = self._find(asked)
        found = model.weights.predict(asked.measure)
        level = self._steering[limit].level * _evidence(category)
        total, output = _reserve(asked, found, category, level)
        prompt = round(found.tokens) + asked.measure.token_ids
        return Budget(prompt, math.ceil(total) - prompt - output, output, _basis(model, category))

    def observe(self, observation: Observation) -> None:
        """Learn from an answer; one whose counts no tokenizer can give teaches nothing."""
        asked = observation.asked
        model, category = self._find(asked)
        if observation.outcome is Outcome.REFUSED:
            self._judge_refusal(observation, model, category)
            return
        tokens = observation.prompt_tokens - asked.measure.token_ids
        if not _possible(observation) or not model.weights.plausible(asked.measure, tokens):
            return
        self._keep(asked, model, category)
        found = model.weights.predict(asked.measure)
        self._judge(observation, found, category)
        for scores in (category.scores, model.scores, self._scores):
            scores.add(found.score(tokens))
        self._learn_output(observation, found, model, category)
        model.weights.learn(asked.measure, tokens)

    def learnt(self) -> Learnt:
        """Per category, per model, and per limit: its level, and the share it will misroute."""
        return Learnt(
            categories={
                f"{category}/{model}": _category_figures(self._models[model], figures)
                for (model, category), figures in self._categories.items()
            },
            models={name: _model_figures(model) for name, model in self._models.items()},
            limits={
                str(limit): {
                    "target": steering.target,
                    "misroute_forecast": steering.forecast(),
                    "risk_level": steering.level,
                }
                for limit, steering in self._steering.items()
            },
        )

    def _find(self, asked: Asked) -> tuple[_Model, _Category]:
        """Return what is known, or a new model and category, kept only once they are taught."""
        model = self._models.get(asked.model)
        if model is None:
            model = _Model(self._prior, self._scores, self._outputs)
        category = self._categories.get((asked.model, asked.category))
        return model, category or _Category(model.scores, model.outputs)

    def _keep(self, asked: Asked, model: _Model, category: _Category) -> None:
        # Only an answer gets here: a client that makes up names cannot push out what was learnt.
        self._models[asked.model] = model
        self._models.move_to_end(asked.model)
        self._categories[asked.model, asked.category] = category
        self._categories.move_to_end((asked.model, asked.category))
        if len(self._models) > MODELS:
            gone, _ = self._models.popitem(last=False)
            for key in [key for key in self._categories if key[0] == gone]:
                del self._categories[key]
        if len(self._categories) > self._most:
            self._categories.popitem(last=False)

    def _judge(self, seen: Observation, found: Prediction, category: _Category) -> None:
        asked, total = seen.asked, _needed(seen)
        budgets = [self.budget(asked, limit) for limit in self._steering]
        covered = all(total <= budget.tokens for budget in budgets)
        category.record.add(seen, budgets[0], covered=covered)
        for limit, steering in self._steering.items():
            steering.observe(_risk_bin(asked, limit, found, category), exceeds=total > limit)

    def _judge_refusal(self, seen: Observation, model: _Model, category: _Category) -> None:
        found = model.weights.predict(seen.asked.measure)
        for limit, steering in self._steering.items():
            if limit <= seen.limit:
                steering.observe(_risk_bin(seen.asked, limit, found, category), exceeds=True)

    def _learn_output(
        self, seen: Observation, found: Prediction, model: _Model, category: _Category
    ) -> None:
        by_size = category.by_size[_size(seen.asked, found)]
        for outputs in (by_size, category.outputs, model.outputs, self._outputs):
            add = outputs.add_censored if seen.outcome is Outcome.CUT else outputs.add
            add(seen.completion_tokens)


def _evidence(category: _Category) -> float:
    """A category that has been seen little carries less risk, down to a fifth at first."""
    return min(1.0, 0.2 + 0.8 * category.observations / CALIBRATED_FROM)


def _reserve(
    asked: Asked, found: Prediction, category: _Category, level: float
) -> tuple[float, int]:
    """Return the total that a share of `level` exceeds, and the output's part in it, in tokens."""
    ids = asked.measure.token_ids
    margin = category.scores.upper(level) * found.deviation
    if asked.output_limit is not None:
        return ids + found.tokens + margin + asked.output_limit, asked.output_limit
    outputs = category.by_size[_size(asked, found)]
    middle, high = outputs.upper(0.5), outputs.upper(level)
    # Two independent errors: their quantiles add up as the root of the squares.
    both = math.copysign(math.hypot(margin, high - middle), margin + high - middle)
    return ids + found.tokens + middle + both, round(high)


def _risk_bin(asked: Asked, limit: int, found: Prediction, category: _Category) -> int:
    """Count the levels that leave the request within the limit: its risk is below them."""
    low, high = 0, len(LEVELS)
    while low < high:
        middle = (low + high) // 2
        total, _ = _reserve(asked, found, category, LEVELS[middle] * _evidence(category))
        low, high = (middle + 1, high) if math.ceil(total) <= limit else (low, middle)
    return low


def _size(asked: Asked, found: Prediction) -> int:
    prompt = int(found.tokens) + asked.measure.token_ids
    return max(0, min(_SIZES - 1, prompt.bit_length() - 9))


def _basis(model: _Model, category: _Category) -> Basis:
    if category.observations >= CALIBRATED_FROM:
        return Basis.CALIBRATED
    return Basis.BORROWED if model.weights.observations else Basis.PRIOR


def _needed(seen: Observation) -> int:
    """Return the tokens that the request needed in truth; one more than it had where it was cut."""
    if seen.asked.output_limit is not None:
        return seen.prompt_tokens + seen.asked.output_limit
    return seen.prompt_tokens + seen.completion_tokens + (seen.outcome is Outcome.CUT)


def _possible(seen: Observation) -> bool:
    return 0 < seen.prompt_tokens < MAX_TOKENS and 0 <= seen.completion_tokens < MAX_TOKENS


def _model_figures(model: _Model) -> Figures:
    weights = model.weights
    return {
        "samples": weights.observations,
        "surprise": weights.surprise,
        **{f"template_{name}": tokens for name, tokens in weights.template().items()},
    }


def _category_figures(model: _Model, category: _Category) -> Figures:
    record = category.record
    return {
        "basis": _basis(model, category).value,
        "samples": category.observations,
        "bytes_per_token": record.bytes_per_token,
        "relative_error": record.error,
        "relative_margin": record.margin,
        "covered": record.covered,
        "completion_tokens_p50": category.outputs.upper(0.5),
        "completion_tokens_p99": category.outputs.upper(0.01),
    }
