"""The estimator that keeps a promise: at most a target share of requests is misrouted.

    prompt   a linear model of the prompt's features, per tokenizer (`weights`, `families`)
    spread   its standardised errors, per category <- model <- all (`sketch`)
    output   completion tokens where no limit is reserved, per category, kind and size (`outputs`)
    level    the risk that one request may carry (`steering`)

`known` makes a budget of the four. Invariant: an answer is judged by the state before it, so that
every figure of coverage is out of sample.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import structs

from extproc.budget.bounded import BoundedMap
from extproc.budget.category import OTHER, OTHER_MODELS
from extproc.budget.estimate import Basis, Budget
from extproc.budget.families import Families, Member, SavedWord
from extproc.budget.known import CALIBRATED_FROM, Known, asked_size, evidence_of
from extproc.budget.outlook import Outlook
from extproc.budget.outputs import Outputs, output_kind
from extproc.budget.prefixes import CONTRADICTION, Prefixes, SavedPrefixes
from extproc.budget.saved import Count, Name, SavedTouches, SavedWeights
from extproc.budget.states import (
    CategoryKey,
    CategoryState,
    Errors,
    ModelState,
    SavedCategory,
    SavedDistributions,
    SavedModel,
)
from extproc.budget.steering import SavedSteering, Steering
from extproc.budget.tenants import (
    SavedAccount,
    SavedFit,
    SavedTenants,
    SavedTenantState,
    Tenants,
)
from extproc.budget.values import Asked, Figures, Learnt, Measure, Observation, Outcome, Recalled
from extproc.budget.weights import Prediction, Prior, TokenWeights, oddity
from extproc.tokens import MAX_TOKENS

LENT: Final = 5
"""Answers of other names with the same weights that count for each answer of a name.

Not more: its outputs may be others.
"""
EVENED: Final = 0.25
"""How errors of several prompts even out in their sum: the error of the largest, in deviations, is
that of all together by its share of the tokens to the power of minus this. With nothing in common
it would be .5, with one error for all 0. For 10 and 32 texts, of one kind or of several, the 99th
percentile of the largest was 1.25 to 1.6 times that of all; this makes it 1.3 and 1.7 times."""
_MOST_FOUND: Final = 256
_NOTHING: Final = Learnt()


class SavedCalibrated(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """What a snapshot of this estimator begins with: what all requests share."""

    known: SavedDistributions
    steering: SavedSteering
    models: SavedTouches
    categories: SavedTouches
    answers: SavedTouches
    answered: Annotated[list[tuple[Name, Count, Count]], msgspec.Meta(max_length=1 << 13)]
    """The categories of all names: answers, and the last touch."""


class _Steered(NamedTuple):
    """The recent answers of a tenant, or of all, and what their steering says."""

    recent: float
    forecast: float
    level: float


class Calibrated:
    """Budgets for all models and categories; one per process. Not thread-safe."""

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        prior: Prior,
        limits: tuple[int, ...],
        thresholds: tuple[int, ...] = (),
        *,
        target: float,
        categories: int,
        tenants: int = 1,
        models: int = 256,
        prefixes: int = 0,
    ) -> None:
        """Take the limits, in tokens: the windows of all pools but the largest, in any order.

        `thresholds` are those of the same pools; without them the limits.
        `target` is the share of all requests, and of those of each tenant, that may exceed the
        window of their pool. Beyond `categories` categories, `tenants` tenants or `models` names of
        models, further ones are treated as one, `other`. Of so many `prefixes` the tokens are kept.
        """
        self._prior = prior
        self._families = Families(prior)
        self._errors = Errors()
        self._outputs = Outputs()
        self._models: BoundedMap[str, ModelState] = BoundedMap(models - 1)
        self._categories: BoundedMap[CategoryKey, CategoryState] = BoundedMap(categories)
        self._answers: BoundedMap[str, int] = BoundedMap(categories)  # of a category of all names
        self._other_model: ModelState | None = None
        self._other_categories: dict[str | None, CategoryState] = {}
        self._steering = Steering(target, limits)
        self._thresholds = dict(zip(limits, thresholds or limits, strict=True))
        self._tenants = Tenants(tenants, self._steering)
        self._prefixes = Prefixes(prefixes)
        # What was found since the last answer, by model, category and tenant.
        self._found: dict[tuple[str, str, str], Known] = {}
        self._outlooks: dict[tuple[str, str], Outlook] = {}

    def retune(  # noqa: PLR0913 - each is a setting of its own
        self,
        limits: tuple[int, ...],
        thresholds: tuple[int, ...] = (),
        *,
        target: float,
        categories: int,
        tenants: int,
        models: int,
        prefixes: int,
    ) -> None:
        """Go on with other settings. What was learnt stays, but of limits that are new."""
        self._forget_found()
        for model in self._models.resize(models - 1):
            self._forget(model)
        for category in self._categories.resize(categories):
            self._tenants.forget(category)
        self._answers.resize(categories)
        self._prefixes.resize(prefixes)
        self._steering.retune(target, limits)
        self._thresholds = dict(zip(limits, thresholds or limits, strict=True))
        self._tenants.retune(tenants)

    def budget(self, asked: Asked) -> Budget:
        """Return a budget that keeps the target if it is compared with windows."""
        known = self._find_of(asked)
        return known.budget(asked, known.predict(asked.measure))

    def outlook(self, model: str, category: str) -> Outlook:
        """Return what estimates plain texts of no tenant, until something is learnt."""
        found = self._outlooks.get((model, category))
        if found is None:
            if len(self._outlooks) >= _MOST_FOUND:
                self._outlooks.clear()
            found = self._outlooks[model, category] = self._find(model, category).outlook()
        return found

    def weigh(self, model: str, tenant: str, measure: Measure) -> float:
        """Return the tokens that a prompt, or several together, are expected to have; above 0."""
        # The category decides nothing here: weights are a model's, or a tenant's for a model.
        found = self._find(model, "", tenant).predict(measure)
        return found.tokens + measure.token_ids

    def recall(self, digest: str) -> Recalled | None:
        """Return what is known of the beginning of a prompt, if it was seen before."""
        return self._prefixes.find(digest)

    def observe(self, observation: Observation) -> None:
        """Learn from an answer, unless no tokenizer can have counted what it states."""
        known = self._find_of(observation.asked)
        self._forget_found()
        if observation.outcome is Outcome.REFUSED:
            self._judge_refusal(observation, known)
            return
        if observation.outcome is Outcome.COUNTED:
            self._prime(observation, known)
            return
        if _is_possible(observation):
            self._learn(observation, known)

    def knows(self, model: str) -> bool:
        """Return whether counted prompts would teach nothing of a model.

        Half of the places for models are left to those that are asked for.
        """
        known = self._models.get(model)
        return known.member.is_known if known else not self._models.has_spare

    def _prime(self, seen: Observation, known: Known) -> None:
        """Teach the weights of a model; no answer was judged, and its outputs are not known."""
        measure, tokens = seen.asked.measure, seen.prompt_tokens - seen.asked.measure.token_ids
        if known.model_key is not None and known.weights.plausible(measure, tokens):
            known.model.member.prime(self._families, measure, tokens)
            self._keep_model(known)

    def _learn(self, seen: Observation, known: Known) -> None:
        asked, weights = seen.asked, known.weights
        tokens = seen.prompt_tokens - asked.every.token_ids
        plausible = weights.plausible(asked.every, tokens)
        if not known.model.believes(plausible=plausible, by_chance=seen.by_chance):
            if asked.prefix:
                self._prefixes.forget(asked.prefix)
            return
        share = self._keep(known, asked.category, seen.stands_for) * seen.stands_for
        largest = known.predict(asked.measure)
        every = largest if asked.whole is None else known.predict(asked.whole)
        self._judge(seen, known, largest, share)
        score = every.score(tokens)
        if known.own_weights or known.model.member.placed:
            self._learn_score(score / asked.share**EVENED, every, known, seen, share)
        if asked.output_limit != 0:
            self._learn_output(seen, known, largest, share)
        if self._learn_prefix(seen, known, score):
            return
        if seen.by_chance and (plausible or not known.model.member.placed):
            found = known.weights.predict(asked.every) if every.is_counted else every
            odd = oddity(found.score(tokens), found.deviation)
            self._learn_weights(known, asked.every, tokens, odd)

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
        for limit in self._steering.risks:
            tenants = list[_Steered]()
            for recent, own in self._tenants.steerings():
                tenants.append(_Steered(recent, own.forecast(limit), own.level))
                yield _NOTHING  # so that no part takes long, however many tenants there are
            yield Learnt(limits={str(limit): self._limit_figures(limit, tenants)})
        yield Learnt(evicted=self._categories.evicted, tenants=self._tenants.figures())

    def save(self) -> Iterator[msgspec.Struct]:
        """Yield what a snapshot keeps in small parts; nothing may be learnt between two of them."""
        yield SavedCalibrated(
            SavedDistributions(self._errors.save(), self._outputs.save()),
            self._steering.save(),
            self._models.save(),
            self._categories.save(),
            self._answers.save(),
            [(name, seen, self._answers.touched(name)) for name, seen in self._answers.items()],
        )
        used = [model.member.weights for _, model in self._all_models()]
        places = {
            weights: place
            for place, weights in enumerate(dict.fromkeys([*used, *self._tenants.own_weights()]))
        }
        for weights in places:
            yield weights.save()

        def place(weights: TokenWeights | None) -> int:
            return places.get(weights, -1) if weights else -1

        for name, model in self._models.items():
            yield model.save(name, self._models.touched(name), model.member.save(place))
        if self._other_model:
            yield self._other_model.save(None, 0, self._other_model.member.save(place))
        yield from self._families.save(place)
        for key, state in self._categories.items():
            touched = self._categories.touched(key)
            yield SavedCategory(*key, touched, state.save(), state.record.save())
        for other, state in self._other_categories.items():
            yield SavedCategory(other, None, 0, state.save(), state.record.save())
        yield from self._tenants.save(place)
        yield from self._prefixes.save()

    def load(self, parts: Iterable[object]) -> None:
        """Continue as the one that was saved; this one has learnt nothing. Raises ValueError."""
        table = list[TokenWeights]()

        def weights_at(place: int) -> TokenWeights:
            if not 0 <= place < len(table):
                raise ValueError("no such weights")
            return table[place]

        for part in parts:
            match part:
                case SavedCalibrated():
                    self._load_common(part)
                case SavedWeights():
                    table.append(TokenWeights(self._prior))
                    table[-1].load(part)
                case SavedModel():
                    self._load_model(part, Member.load(part.member, weights_at))
                case SavedWord():
                    self._families.load(part, weights_at)
                case SavedCategory():
                    self._load_category(part)
                case SavedPrefixes():
                    self._prefixes.load(part)
                case SavedTenants() | SavedAccount() | SavedTenantState() | SavedFit():
                    self._tenants.load(part, self._kept_category, weights_at)
                case _:
                    raise ValueError(f"{type(part).__name__} is of another estimator")

    def _load_common(self, saved: SavedCalibrated) -> None:
        self._errors.load(saved.known.errors)
        self._outputs.load(saved.known.outputs)
        self._steering.load(saved.steering)
        self._models.load(saved.models)
        self._categories.load(saved.categories)
        self._answers.load(saved.answers)
        for name, seen, touched in saved.answered:
            self._answers.restore(name, seen, touched)

    def _load_model(self, saved: SavedModel, member: Member) -> None:
        model = ModelState(member, self._errors, self._outputs)
        model.load(saved)
        if saved.name is None:
            self._other_model = model
        elif self._models.restore(saved.name, model, saved.touched):
            self._families.restore(saved.name, member)

    def _load_category(self, saved: SavedCategory) -> None:
        model = self._other_model if saved.model is None else self._models.get(saved.model)
        if model is None:  # there is room for fewer models now
            return
        category = CategoryState(model)
        category.load(saved.known)
        category.record.load(saved.record)
        if saved.category is None:
            self._other_categories[saved.model] = category
        else:
            key = saved.model, saved.category
            self._categories.restore(key, category, saved.touched)

    def _kept_category(self, key: CategoryKey) -> CategoryState | None:
        model, category = key
        own = self._categories.get(key)
        return self._other_categories.get(model) if category == OTHER else own

    def _limit_figures(self, limit: int, tenants: Sequence[_Steered]) -> Figures:
        """Return the figures of a limit: means over recent answers if tenants are told apart."""
        common = self._steering
        steered = tenants or [_Steered(1.0, common.forecast(limit), common.level)]
        total = sum(each.recent for each in steered)
        figures: Figures = {
            "target": common.target,
            "misroute_forecast": sum(each.recent / total * each.forecast for each in steered),
            "risk_level": sum(each.recent / total * each.level for each in steered),
        }
        # A mean over all would hide one tenant that fares badly.
        worst = max((each.forecast for each in tenants), default=None)
        return figures if worst is None else figures | {"tenant_forecast_max": worst}

    def _all_models(self) -> list[tuple[str, ModelState]]:
        other = [(OTHER_MODELS, self._other_model)] if self._other_model else []
        return [*self._models.items(), *other]

    def _all_categories(self) -> list[tuple[CategoryKey, CategoryState]]:
        others = [((model, OTHER), state) for model, state in self._other_categories.items()]
        return [*self._categories.items(), *others]

    def _find_of(self, asked: Asked) -> Known:
        return self._find(asked.model, asked.category, asked.tenant)

    def _forget_found(self) -> None:
        self._found.clear()
        self._outlooks.clear()

    def _find(self, name: str, of: str, tenant_name: str = "") -> Known:
        """Return what is known of a model, a category of it and a tenant.

        States that are new are kept only once an answer taught them.
        """
        asked_key = (name, of, tenant_name)
        if (before := self._found.get(asked_key)) is not None:
            return before
        model_key, found = self._find_model(name)
        model = found or self._new_model(name)
        category_key, kept = self._find_category((model_key, of))
        category = kept or CategoryState(model)
        tenant = None
        if tenant_name:
            key = category_key or (model_key, OTHER)
            tenant = self._tenants.find(tenant_name, key, category)
        steering = tenant.account.steering if tenant else self._steering
        every = self._answers.get(of) or 0
        others = max(0, every - category.observations) if category_key else 0
        state = tenant.state if tenant else category
        lent = min(others, LENT * model.member.answers) if model.member.placed else 0
        known = Known(
            model_key=model_key,
            model=model,
            category_key=category_key,
            category=category,
            tenant=tenant,
            steering=steering,
            distributions=state,
            evidence=evidence_of(state.observations + lent),
        )
        if len(self._found) >= _MOST_FOUND:
            self._found.clear()
        self._found[asked_key] = known
        return known

    def _new_model(self, name: str) -> ModelState:
        return ModelState(self._families.find(name), self._errors, self._outputs)

    def _find_model(self, name: str) -> tuple[str | None, ModelState | None]:
        if self._models.has_room(name):
            return name, self._models.get(name)
        return None, self._other_model

    def _find_category(self, key: CategoryKey) -> tuple[CategoryKey | None, CategoryState | None]:
        if self._categories.has_room(key):
            return key, self._categories.get(key)
        return None, self._other_categories.get(key[0])

    def _keep(self, known: Known, category: str, stands_for: int) -> float:
        """Keep states that may be new; return the weight of the answer in what tenants share."""
        self._keep_model(known)
        if known.category_key is None:
            self._categories.pass_by()
            self._other_categories[known.model_key] = known.category
        elif gone := self._categories.touch(known.category_key, known.category):
            self._tenants.forget(gone)
        if self._answers.has_room(category):
            self._answers.touch(category, (self._answers.get(category) or 0) + 1)
        return self._tenants.keep(known.tenant, stands_for) if known.tenant else 1.0

    def _keep_model(self, known: Known) -> None:
        # Only what a server states gets here: a client cannot push out what was learnt by inventing
        # names.
        if known.model_key is None:
            self._models.pass_by()
            self._other_model = known.model
        else:
            self._forget(self._models.touch(known.model_key, known.model))
            self._families.keep(known.model_key, known.model.member)

    def _forget(self, model: str | None) -> None:
        if model is None:
            return
        for key in [key for key, _ in self._categories.items() if key[0] == model]:
            self._categories.drop(key)
            self._tenants.forget(key)
        self._other_categories.pop(model, None)
        self._families.forget(model)
        self._tenants.forget((model, OTHER))
        self._tenants.forget_fits(model)

    def _judge(self, seen: Observation, known: Known, found: Prediction, share: float) -> None:
        budget = known.budget(seen.asked, found)
        known.category.record.add(seen, budget)
        known.steering.count(
            misrouted=_misroutes(budget, seen, self._thresholds),
            share=known.evidence,
            weight=seen.stands_for if known.tenant else share,
        )
        for limit in self._steering.risks:
            exceeds, bin_ = seen.needed > limit, known.risk_bin(seen.asked, limit, found)
            self._steering.observe(limit, bin_, exceeds=exceeds, weight=share)
            if known.tenant:
                known.steering.observe(limit, bin_, exceeds=exceeds, weight=seen.stands_for)

    def _judge_refusal(self, seen: Observation, known: Known) -> None:
        # Refusals do not teach the common steering of tenants: nothing bounds how many one causes.
        found = known.predict(seen.asked.measure)
        if seen.window in known.steering.risks:  # else no pool would have held it
            known.steering.count(misrouted=True, weight=seen.stands_for)
        for limit in known.steering.risks:
            if limit <= seen.window:
                bin_ = known.risk_bin(seen.asked, limit, found)
                known.steering.observe(limit, bin_, exceeds=True, weight=seen.stands_for)

    def _learn_weights(self, known: Known, measure: Measure, tokens: int, odd: float) -> None:
        # Which answers are seen depends on the prompt alone: that does not bias a regression.
        if known.own_weights:
            known.own_weights.learn(measure, tokens)
            return
        member, shared = known.model.member, known.model.member.weights
        member.learn(self._families, measure, tokens, odd)
        if known.tenant and member.placed and member.weights is shared:
            known.tenant.fit.compare(shared, odd)

    def _learn_prefix(self, seen: Observation, known: Known, score: float) -> bool:
        """Learn the tokens of the prompt's beginnings; return whether what was known was wrong."""
        prefix, asked = seen.asked.prefix, seen.asked
        if prefix is None:
            return False
        wrong = prefix.known and abs(score) > CONTRADICTION
        if wrong:
            self._prefixes.forget(prefix)
        rest = structs.replace(asked.measure, doubt=0.0) if prefix.known else prefix.rest
        # A mean over answers that are seen for what they state would be biased.
        found = known.predict(rest) if rest and seen.by_chance else None
        self._prefixes.learn(prefix, seen.prompt_tokens, found)
        return wrong

    def _learn_score(
        self, score: float, found: Prediction, known: Known, seen: Observation, share: float
    ) -> None:
        for errors in (self._errors, known.model.errors, known.category.errors):
            errors.add(seen.asked, found, score, share)
        if known.tenant:
            known.tenant.state.add_score(score, found, known.weights, seen)

    def _learn_output(
        self, seen: Observation, known: Known, found: Prediction, share: float
    ) -> None:
        # The mean of several sequences says little of the longest: it has no such tail.
        several = seen.asked.sequences > 1
        if several and known.category.outputs.every.observations >= CALIBRATED_FROM:
            return
        kind, size = output_kind(seen.asked), asked_size(seen.asked, found)
        for outputs in (self._outputs, known.model.outputs, known.category.outputs):
            outputs.add(kind, size, seen, share)
        if known.tenant:
            known.tenant.state.outputs.add(kind, size, seen, seen.stands_for)


def _misroutes(budget: Budget, seen: Observation, thresholds: Mapping[int, int]) -> bool:
    """Return whether a request exceeds the smallest limit that its budget fits.

    `thresholds`: of each limit, what its budget must be placed within.
    """
    fitting = [
        limit
        for limit, threshold in thresholds.items()
        if budget.tokens <= limit and budget.placed <= threshold
    ]
    return seen.needed > min(fitting, default=seen.needed)


def _is_possible(seen: Observation) -> bool:
    return 0 < seen.prompt_tokens < MAX_TOKENS and 0 <= seen.completion_tokens < MAX_TOKENS


def _model_figures(model: ModelState) -> Figures:
    weights = model.member.weights
    return {
        "samples": model.member.answers,
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
        "completion_tokens_p50": category.outputs.every.upper(0.5),
        "completion_tokens_p99": category.outputs.every.upper(0.01),
    }
