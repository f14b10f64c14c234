"""Names that share what is learnt of their tokenizer."""

import random

from extproc.budget.families import (
    DOUBT,
    ENOUGH,
    MOST_PROBATION,
    MOST_WEIGHTS,
    PROBATION,
    Contradiction,
    Families,
    Member,
)
from extproc.budget.prior import MEASURED
from extproc.budget.values import Measure
from extproc.budget.weights import TokenWeights, oddity
from tests.support.prose import prose


def tokens(seen: Measure, bytes_per_token: float) -> int:
    return int(seen.text_bytes / bytes_per_token) + 25


class Fleet:
    """Names with the families that they are kept in."""

    def __init__(self) -> None:
        self.families, self.names = Families(MEASURED), dict[str, Member]()
        self.draw = random.Random(1)

    def count(self, name: str, bytes_per_token: float = 4.4, times: int = ENOUGH) -> Member:
        member = self.names.get(name) or self.families.find(name)
        for number in range(times):
            seen = prose(300 + number)
            member.prime(self.families, seen, tokens(seen, bytes_per_token))
        self.families.keep(name, member)
        self.names[name] = member
        return member

    def answer(self, name: str, bytes_per_token: float = 4.4, times: int = 1) -> Member:
        for _ in range(times):
            member = self.names.get(name) or self.families.find(name)
            seen = prose(self.draw.randint(50, 2000))
            true, found = tokens(seen, bytes_per_token), member.predict(seen)
            odd = oddity(found.score(true), found.deviation)
            member.learn(self.families, seen, true, odd)
            self.families.keep(name, member)
            self.names[name] = member
        return self.names[name]


def error(member: Member, bytes_per_token: float) -> float:
    seen = prose(1000)
    return abs(member.predict(seen).tokens / tokens(seen, bytes_per_token) - 1)


def test_the_first_name_is_not_on_probation() -> None:
    assert Families(MEASURED).find("m").placed


def test_a_new_name_is_estimated_by_what_others_have_learnt() -> None:
    fleet = Fleet()
    fleet.answer("m", 3.2, times=300)
    new = fleet.families.find("new")
    assert not new.placed
    assert error(new, 3.2) < 0.03


def test_a_name_on_probation_is_estimated_with_more_doubt() -> None:
    fleet = Fleet()
    known, new = fleet.answer("m", times=300), fleet.families.find("new")
    assert new.predict(prose(1000)).deviation > 2 * known.predict(prose(1000)).deviation


def test_a_name_on_probation_teaches_the_others_nothing() -> None:
    fleet = Fleet()
    known = fleet.answer("m", times=300)
    before = known.predict(prose(1000))
    fleet.answer("new", 2.2, times=PROBATION - 1)
    assert known.predict(prose(1000)) == before


def test_names_whose_answers_fit_share_their_weights() -> None:
    fleet = Fleet()
    known, new = fleet.answer("m", times=300), fleet.answer("new", times=PROBATION)
    assert new.placed
    assert new.weights is known.weights
    assert known.weights.observations == 300 + PROBATION


def llamas(fleet: Fleet, count: int = 20) -> None:
    for number in range(count):
        fleet.answer(f"llama:{number}", times=2 * PROBATION)


def test_the_more_names_of_a_word_share_weights_the_less_is_a_new_one_doubted() -> None:
    fleet, doubts = Fleet(), list[float]()
    for number in range(4):
        fleet.answer(f"llama:{number}", times=2 * PROBATION)
        doubts.append(fleet.families.find("llama:new").doubt)
    assert doubts == sorted(doubts, reverse=True)
    assert doubts[-1] < DOUBT / 2


def test_names_of_another_word_say_nothing_of_a_new_one() -> None:
    fleet = Fleet()
    llamas(fleet)
    assert fleet.families.find("qwen3-8b").doubt == DOUBT


def test_names_of_its_word_with_other_weights_make_a_new_one_doubted() -> None:
    fleet = Fleet()
    llamas(fleet, 3)
    before = fleet.families.find("llama:new").doubt
    fleet.answer("llama:other", 2.4, times=60)
    assert fleet.families.find("llama:new").doubt > before


def test_a_name_on_probation_is_doubted_less_once_names_of_its_word_are_placed() -> None:
    fleet = Fleet()
    before = fleet.answer("llama:0", times=300), fleet.answer("llama:new").doubt
    llamas(fleet)
    assert fleet.answer("llama:new").doubt < before[1]


def test_a_name_that_contradicts_the_others_is_doubted_like_one_without_others() -> None:
    fleet = Fleet()
    llamas(fleet)
    while fleet.answer("llama:0", 2.4).placed:
        fleet.answer("llama:1")
    assert fleet.answer("llama:0", 2.4).doubt == DOUBT


def test_a_name_whose_answers_do_not_fit_gets_weights_of_its_own() -> None:
    fleet = Fleet()
    known, new = fleet.answer("m", times=300), fleet.answer("new", 2.8, times=60)
    assert new.weights is not known.weights
    assert error(known, 4.4) < 0.02
    assert error(new, 2.8) < 0.03


def test_a_name_begins_with_the_weights_of_names_that_begin_with_the_same_word() -> None:
    fleet = Fleet()
    fleet.answer("llama-3-70b", times=300)
    fleet.answer("qwen3-8b", 2.8, times=60)
    assert fleet.families.find("Qwen3-8b:sql").weights is fleet.names["qwen3-8b"].weights


def test_a_name_of_another_family_finds_the_weights_that_fit_it() -> None:
    fleet = Fleet()
    fleet.answer("llama-3-70b", times=300)
    fleet.answer("qwen3-8b", 2.8, times=60)
    assert fleet.answer("sql", 2.8, times=2 * PROBATION).weights is fleet.names["qwen3-8b"].weights


def test_a_name_whose_model_is_changed_leaves_the_others() -> None:
    fleet = Fleet()
    for _ in range(100):
        fleet.answer("one"), fleet.answer("other")
    for _ in range(200):
        fleet.answer("one"), fleet.answer("other", 2.4)
    assert fleet.names["other"].weights is not fleet.names["one"].weights
    assert error(fleet.names["other"], 2.4) < 0.05
    assert error(fleet.names["one"], 4.4) < 0.05


def test_the_sets_of_weights_are_bounded() -> None:
    fleet = Fleet()
    for number in range(3 * MOST_WEIGHTS):
        fleet.answer(f"m{number}", 1.5 * 1.12**number, times=60)
    assert len({id(member.weights) for member in fleet.names.values()}) <= MOST_WEIGHTS


def test_words_are_bounded() -> None:
    families, member = Families(MEASURED), Member(TokenWeights(MEASURED), placed=True)
    for number in range(3 * MOST_WEIGHTS):
        families.keep(f"m{number}", member)
    assert len(families._words) == MOST_WEIGHTS


def test_weights_do_not_fail_where_nobody_else_uses_them() -> None:
    shared, found = TokenWeights(MEASURED), Contradiction()
    for _ in range(100):
        shared.observations += 1
        assert not found.add(shared, 16.0)


def test_contradiction_that_others_do_not_share_fails_after_sixteen_answers() -> None:
    shared, found, answers = TokenWeights(MEASURED), Contradiction(), 1
    shared.observations += 2
    while not found.add(shared, 100.0):
        shared.observations += 2
        answers += 1
    assert answers == 16


def test_answers_that_agree_never_add_up() -> None:
    shared, found = TokenWeights(MEASURED), Contradiction()
    for number in range(1000):
        shared.observations += 2
        assert not found.add(shared, 16.0 if number % 10 == 0 else 1.0)


def test_short_prompts_place_no_name() -> None:
    fleet = Fleet()
    known = fleet.answer("m", times=300)
    for _ in range(20):
        member = fleet.names.get("new") or fleet.families.find("new")
        member.learn(fleet.families, prose(1), 30, 0.0)
        fleet.names["new"] = member
    assert not member.placed
    new = fleet.answer("new", 4.0, times=PROBATION + 40)
    assert new.placed
    assert new.weights is not known.weights


def test_a_name_of_short_prompts_alone_is_placed_in_the_end() -> None:
    fleet = Fleet()
    fleet.answer("m", times=300)
    member = fleet.families.find("new")
    for _ in range(MOST_PROBATION):
        member.learn(fleet.families, prose(1), 30, 0.0)
    assert member.placed


def test_weights_that_no_name_has_any_more_are_forgotten() -> None:
    fleet = Fleet()
    fleet.answer("m", times=300)
    fleet.answer("new", 2.8, times=60)
    fleet.families.forget("new")
    assert len(fleet.families.weights) == 1


def test_contradictions_of_other_weights_do_not_count() -> None:
    one, other, found = TokenWeights(MEASURED), TokenWeights(MEASURED), Contradiction()
    one.observations = other.observations = 100
    for _ in range(15):
        one.observations += 2
        assert not found.add(one, 100.0)
    other.observations += 2
    assert not found.add(other, 100.0)


def test_counts_teach_the_first_name_its_weights() -> None:
    member = Fleet().count("m", 3.2)
    assert member.is_known
    assert error(member, 3.2) < 0.03
    assert member.answers == 0


def test_counts_place_a_name_with_the_weights_that_they_fit_and_teach_these_nothing() -> None:
    fleet = Fleet()
    base = fleet.count("base")
    before = base.predict(prose(1000))
    kin = fleet.count("kin", times=PROBATION)
    assert kin.weights is base.weights
    assert kin.is_known
    assert kin.predict(prose(1000)) == before


def test_counts_that_fit_no_weights_teach_new_ones() -> None:
    fleet = Fleet()
    base, other = fleet.count("base"), fleet.count("other", 2.2)
    assert other.weights is not base.weights
    assert error(other, 2.2) < 0.04


def test_counts_leave_half_of_the_sets_of_weights_to_names_that_answer() -> None:
    fleet = Fleet()
    for number in range(MOST_WEIGHTS):
        fleet.count(f"name{number}", 1.5 * 1.15**number)
    assert len(fleet.families.weights) == MOST_WEIGHTS // 2
    assert not fleet.names[f"name{MOST_WEIGHTS - 1}"].placed


def test_a_name_with_few_counts_stays_on_probation() -> None:
    fleet = Fleet()
    fleet.count("base")
    new = fleet.count("new", times=PROBATION - 1)
    assert not new.placed
    assert not new.is_known


def test_counts_teach_weights_nothing_that_have_learnt_enough() -> None:
    fleet = Fleet()
    member = fleet.answer("m", times=300)
    before = member.predict(prose(1000))
    fleet.count("m", 2.2)
    assert member.predict(prose(1000)) == before


def test_an_estimate_from_counts_alone_is_doubted_until_answers_come() -> None:
    fleet = Fleet()
    member = fleet.count("m")
    assert member.doubt == DOUBT
    fleet.answer("m", times=PROBATION)
    assert member.doubt == 0.0
    assert fleet.count("kin").doubt == 0.0


def test_a_first_name_that_answers_teach_is_not_doubted() -> None:
    assert Fleet().answer("m").doubt == 0.0
