"""What is kept apart for each tenant, and how much a tenant teaches the others.

A tenant has distributions of its own for each category, and a steering of its own for each limit.
Both start from what all tenants have taught together, and outgrow it. The token weights of a model
are common, since its tokenizer is: a tenant has weights of its own only once its answers keep
contradicting the common ones, as they do if the template drops its text.

Invariants: of the last RECENT answers, those of one tenant teach the common distributions and
steering as FULL answers at most. Memory is bounded: tenants beyond the permitted number are treated
as one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

import msgspec

from extproc.budget.bounded import BoundedMap
from extproc.budget.families import (
    Contradiction,
    Place,
    PlaceOf,
    SavedContradiction,
    WeightsAt,
)
from extproc.budget.saved import Amount, Count, Name, SavedTouches
from extproc.budget.states import (
    CategoryKey,
    CategoryState,
    Distributions,
    Errors,
    SavedDistributions,
)
from extproc.budget.steering import SavedSteering, Steering
from extproc.budget.values import Figures, Observation
from extproc.budget.weights import Prediction, TokenWeights

OTHERS: Final = ""
"""The name of all tenants beyond the permitted number; no digest is empty."""
RECENT: Final = 1000.0
FULL: Final = 100.0
STATES: Final = 4
"""States, and weights, that are kept for each permitted tenant: on average, not of each one."""


_UNUSED: Final = -1  # what a Place is of weights that nobody has
_UNSCORED: Final = -2


class SavedTenants(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The counts over all tenants in a snapshot."""

    answers: Count
    accounts: SavedTouches
    states: SavedTouches
    fits: SavedTouches


class SavedAccount(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The account of a tenant in a snapshot."""

    name: Name
    touched: Count
    recent: Amount
    at: Count
    steering: SavedSteering


class SavedTenantState(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """A state of a tenant in a snapshot."""

    tenant: Name
    model: Name | None
    category: Name
    touched: Count
    known: SavedDistributions
    scored: int
    """The place of the weights whose errors are counted, _UNUSED or _UNSCORED."""


class SavedFit(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """How weights fit a tenant, in a snapshot."""

    tenant: Name
    model: Name | None
    touched: Count
    own: Place
    contradiction: SavedContradiction


SavedTenant: TypeAlias = SavedTenants | SavedAccount | SavedTenantState | SavedFit


class TenantState(Distributions):
    """What is known of one tenant in one category of one model."""

    def __init__(self, category: CategoryState) -> None:
        super().__init__(category, outgrows=True)
        self._category = category
        self._scored: TokenWeights | str | None = None

    def add_score(
        self, score: float, found: Prediction, weights: TokenWeights, seen: Observation
    ) -> None:
        """Count an error of an estimate by these weights; those of others are forgotten."""
        if self._scored not in (None, weights):
            self.errors = Errors(self._category.errors, outgrows=True)
        self._scored = weights
        self.errors.add(seen.asked, found, score, seen.stands_for)

    def save_as(
        self, tenant: str, key: CategoryKey, touched: int, place: PlaceOf
    ) -> SavedTenantState:
        """Return what is kept in a snapshot."""
        scored = self._scored
        where = _UNSCORED if scored is None else _UNUSED
        if isinstance(scored, TokenWeights):
            where = place(scored)
        return SavedTenantState(tenant, *key, touched, self.save(), where)

    def load_as(self, saved: SavedTenantState, weights: WeightsAt) -> None:
        """Continue as the state that was saved. Raises ValueError."""
        self.load(saved.known)
        self._scored = None if saved.scored == _UNSCORED else "others"
        if saved.scored >= 0:
            self._scored = weights(saved.scored)


class WeightsFit:
    """Whether the common weights of a model fit a tenant; `own` are its own if they do not."""

    def __init__(self) -> None:
        self.own: TokenWeights | None = None
        self._contradiction = Contradiction()

    def compare(self, common: TokenWeights, odd: float) -> None:
        """Compare an answer with the common weights, which mispredicted it and have learnt it."""
        if self._contradiction.add(common, odd):
            self.own = common.copy()

    def save(self, tenant: str, model: str | None, touched: int, place: PlaceOf) -> SavedFit:
        """Return what is kept in a snapshot."""
        return SavedFit(tenant, model, touched, place(self.own), self._contradiction.save(place))

    def load(self, saved: SavedFit, weights: WeightsAt) -> None:
        """Continue as the one that was saved. Raises ValueError."""
        self.own = weights(saved.own) if saved.own >= 0 else None
        self._contradiction.load(saved.contradiction, weights)


class _Account:
    """The steering of one tenant, and how many of the recent answers were its own."""

    def __init__(self, steering: Steering) -> None:
        self.steering = steering
        self._recent = 0.0
        self._at = 0

    def recent(self, now: int) -> float:
        """Return the tenant's recent answers when `now` answers of all tenants were counted."""
        return float(self._recent * (1.0 - 1.0 / RECENT) ** (now - self._at))

    def count(self, now: int, stands_for: int) -> float:
        """Count an answer; return the share of it that teaches what is common."""
        self._recent, self._at = self.recent(now) + stands_for, now
        return min(1.0, FULL / self._recent)

    def save(self, name: str, touched: int) -> SavedAccount:
        """Return what is kept in a snapshot."""
        return SavedAccount(name, touched, self._recent, self._at, self.steering.save())

    def load(self, saved: SavedAccount) -> None:
        """Continue as the account that was saved."""
        self._recent, self._at = saved.recent, saved.at
        self.steering.load(saved.steering)


@dataclass(frozen=True, slots=True)
class Tenant:
    """What is known of the tenant of a request."""

    name: str
    """Its digest, or OTHERS."""
    category_key: CategoryKey
    account: _Account
    state: TenantState
    fit: WeightsFit


class Tenants:
    """All tenants: at most `most`, with STATES times as many states and weights of theirs."""

    def __init__(self, most: int, common: Steering) -> None:
        self._common = common
        self._accounts: BoundedMap[str, _Account] = BoundedMap(most)
        self._states: BoundedMap[tuple[str, CategoryKey], TenantState] = BoundedMap(STATES * most)
        self._fits: BoundedMap[tuple[str, str | None], WeightsFit] = BoundedMap(STATES * most)
        self._other_account = self._account()
        self._other_states: dict[CategoryKey, TenantState] = {}
        self.answers = 0
        """The answers of all tenants, and those that they stand for."""

    def retune(self, most: int) -> None:
        """Keep at most `most` tenants from now on, and steer all of them as the common steering."""
        self._accounts.resize(most)
        self._states.resize(STATES * most)
        self._fits.resize(STATES * most)
        for account in (*(each for _, each in self._accounts.items()), self._other_account):
            account.steering.retune(self._common.target, self._common.risks)

    def find(self, digest: str, key: CategoryKey, category: CategoryState) -> Tenant:
        """Return what is known of a tenant in a category. What is new is not kept yet."""
        name = digest if self._accounts.has_room(digest) else OTHERS
        account = self._other_account
        if name != OTHERS:
            account = self._accounts.get(name) or self._account()
        own = self._has_state(name, key)
        state = self._states.get((name, key)) if own else self._other_states.get(key)
        fit = self._fits.get((name, key[0])) or WeightsFit()
        return Tenant(name, key, account, state or TenantState(category), fit)

    def keep(self, found: Tenant, stands_for: int = 1) -> float:
        """Keep what an answer taught; return the share of it that teaches what is common."""
        name, key = found.name, found.category_key
        if self._has_state(name, key):
            self._states.touch((name, key), found.state)
        else:
            self._states.pass_by()
            self._other_states[key] = found.state
        if name != OTHERS:
            self._accounts.touch(name, found.account)
        else:
            self._accounts.pass_by()
        if self._fits.has_room((name, key[0])):
            self._fits.touch((name, key[0]), found.fit)
        else:
            self._fits.pass_by()
        self.answers += stands_for
        return found.account.count(self.answers, stands_for)

    def forget(self, gone: CategoryKey) -> None:
        """Forget what is known of all tenants in a category that was evicted."""
        self._other_states.pop(gone, None)
        for key in [key for key, _ in self._states.items() if key[1] == gone]:
            self._states.drop(key)

    def forget_fits(self, model: str) -> None:
        """Forget the weights of all tenants for a model that was evicted."""
        for key in [key for key, _ in self._fits.items() if key[1] == model]:
            self._fits.drop(key)

    def figures(self) -> Figures:
        """Return how many tenants are kept and were evicted, and how many weights are their own.

        Nothing if tenants are not told apart.
        """
        if not self.answers:
            return {}
        return {
            "kept": sum(1 for _ in self._accounts.items()),
            "evicted": self._accounts.evicted,
            "own_weights": sum(fit.own is not None for _, fit in self._fits.items()),
        }

    def steerings(self) -> Iterator[tuple[float, Steering]]:
        """Yield the steering of each tenant that answers have taught, with its recent answers."""
        accounts = [account for _, account in self._accounts.items()]
        for account in (*accounts, self._other_account):
            if (recent := account.recent(self.answers)) > 0.0:
                yield recent, account.steering

    def own_weights(self) -> Iterator[TokenWeights]:
        """Yield the weights that tenants have for themselves."""
        for _, fit in self._fits.items():
            if fit.own:
                yield fit.own

    def save(self, place: PlaceOf) -> Iterator[SavedTenant]:
        """Yield what is kept in a snapshot."""
        yield SavedTenants(
            self.answers, self._accounts.save(), self._states.save(), self._fits.save()
        )
        yield self._other_account.save(OTHERS, 0)
        for name, account in self._accounts.items():
            yield account.save(name, self._accounts.touched(name))
        for place_key, state in self._states.items():
            yield state.save_as(*place_key, self._states.touched(place_key), place)
        for key, state in self._other_states.items():
            yield state.save_as(OTHERS, key, 0, place)
        for fit_key, fit in self._fits.items():
            yield fit.save(*fit_key, self._fits.touched(fit_key), place)

    def load(
        self,
        saved: SavedTenant,
        categories: Callable[[CategoryKey], CategoryState | None],
        weights: WeightsAt,
    ) -> None:
        """Continue with a part that was saved. Raises ValueError."""
        match saved:
            case SavedTenants():
                self.answers = saved.answers
                self._accounts.load(saved.accounts)
                self._states.load(saved.states)
                self._fits.load(saved.fits)
            case SavedAccount():
                self._load_account(saved)
            case SavedTenantState():
                category = categories((saved.model, saved.category))
                if category:
                    self._load_state(saved, category, weights)
            case SavedFit():
                fit = WeightsFit()
                fit.load(saved, weights)
                self._fits.restore((saved.tenant, saved.model), fit, saved.touched)
            case unknown:
                assert_never(unknown)

    def _load_account(self, saved: SavedAccount) -> None:
        if saved.at > self.answers:
            raise ValueError("an answer before it was counted")
        if saved.name == OTHERS:
            self._other_account.load(saved)
            return
        account = self._account()
        account.load(saved)
        self._accounts.restore(saved.name, account, saved.touched)

    def _load_state(
        self, saved: SavedTenantState, category: CategoryState, weights: WeightsAt
    ) -> None:
        state, key = TenantState(category), (saved.model, saved.category)
        state.load_as(saved, weights)
        if saved.tenant == OTHERS:
            self._other_states[key] = state
        else:
            self._states.restore((saved.tenant, key), state, saved.touched)

    def _has_state(self, name: str, key: CategoryKey) -> bool:
        return name != OTHERS and self._states.has_room((name, key))

    def _account(self) -> _Account:
        return _Account(Steering(self._common.target, self._common.risks, self._common))
