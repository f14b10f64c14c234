"""Who routes in a simulated fleet."""

from collections import Counter

import numpy as np
import pytest
from msgspec.structs import replace

from extproc.budget.values import Outcome
from extproc.config.settings import Settings
from extproc.planner.simulation.fleet import FleetSpec
from extproc.planner.simulation.rules import Estimated, Replayed, Rule, RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from extproc.planner.traffic.arrivals import Incoming, arrive, draw_limits
from tests.support.small_fleets import TWO, incoming, pool, trace

WIDE = FleetSpec((pool("short", 2048, instances=2), pool("long", 16384, instances=2)))


def chosen(name: RuleName, prompt: int, output: int, max_tokens: int = 0) -> int:
    (each,) = incoming([(0, prompt, output)], max_tokens)
    return make_rule(name, WIDE, 0).choose(each)


def teach(rule: Rule, lengths: list[tuple[int, int]], max_tokens: int = 128) -> None:
    for each in incoming([(1, *length) for length in lengths], max_tokens):
        rule.learn(each, 0, Outcome.COMPLETE, each.wanted_tokens)


@pytest.mark.parametrize("name", [RuleName.DUALPOOL, RuleName.PAPER])
def test_a_stated_limit_counts_whole(name):
    assert chosen(name, 200, 5, max_tokens=4000) == 1
    assert chosen(name, 200, 5, max_tokens=128) == 0


def test_the_input_alone_does_not_see_the_output():
    assert chosen(RuleName.INPUT_LENGTH, 2000, 5000) == 0
    assert chosen(RuleName.INPUT_LENGTH, 2049, 1) == 1


def test_the_oracle_sees_what_is_answered_and_not_what_was_stated():
    assert chosen(RuleName.ORACLE, 2000, 48, max_tokens=4000) == 0
    assert chosen(RuleName.ORACLE, 2000, 49, max_tokens=4000) == 1


def test_chance_gives_each_instance_the_same_share():
    fleet = FleetSpec((pool("short", 64, instances=3), pool("long", 256, instances=1)))
    rule = make_rule(RuleName.RANDOM, fleet, 0)
    (each,) = incoming([(0, 10, 10)])
    counts = Counter(rule.choose(each) for _ in range(4000))
    assert counts[0] / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_replayed_run_chooses_the_same():
    arrivals = trace([(0.1, 2000, 40), (0.1, 100, 40), (0.1, 2030, 40)] * 30)
    limits = draw_limits(arrivals, 0)
    rule = make_rule(RuleName.DUALPOOL, WIDE, 0)
    first = simulate(WIDE, arrive(arrivals, limits, 0), rule, Conduct())
    unread = arrive(arrivals, limits, 0, texts=False)
    again = simulate(WIDE, unread, Replayed(first.chosen.tolist()), Conduct())
    assert again.timings() == first.timings()


def test_the_service_s_rule_learns_as_it_goes():
    rule = make_rule(RuleName.DUALPOOL, WIDE, 0)
    (near,) = incoming([(0, 1500, 100)], max_tokens=128)
    before = rule.choose(near)
    teach(rule, [(1000 + n, 100) for n in range(300)])
    assert (before, rule.choose(near)) == (1, 0)


def test_the_promise_is_kept_on_lengths_that_straddle_the_threshold():
    fleet = FleetSpec((pool("short", 2048, instances=8), pool("long", 16384, instances=8)))
    rng = np.random.default_rng(0)
    rows = [(1.0, int(n), 50) for n in np.exp(rng.normal(7.0, 0.9, 4000)).clip(1, 9000)]
    arrivals = trace(rows)
    limits = draw_limits(arrivals, 0, stated=1.0)
    rule = make_rule(RuleName.DUALPOOL, fleet, 0)
    records = simulate(fleet, arrive(arrivals, limits, 0), rule, Conduct())
    misrouted = (records.chosen == 0) & (records.needed > 2048)
    over = (records.chosen == 1) & (records.needed <= 2048)
    assert misrouted[500:].mean() <= 0.002
    assert over[500:].mean() <= 0.05


def test_the_settings_name_the_estimator_of_the_service_s_rule():
    paper = Settings.model_validate({"budget": {"estimator": "paper"}})
    (each,) = incoming([(0, 1990, 5)], max_tokens=40)
    named, of_settings = (
        make_rule(RuleName.PAPER, WIDE, 0),
        make_rule(RuleName.DUALPOOL, WIDE, 0, settings=paper),
    )
    for rule in (named, of_settings):
        assert isinstance(rule, Estimated)
        assert "bytes_per_token" in taught(rule, each)
    assert taught(named, each) == taught(of_settings, each)


def taught(rule: Estimated, each: Incoming) -> dict[str, float | str]:
    rule.learn(each, 0, Outcome.COMPLETE, 5)
    (figures,) = rule._estimator.learnt().categories.values()
    return figures


def test_the_settings_give_the_constants_of_the_paper_s_rule():
    generous = Settings.model_validate({"budget": {"default_output_tokens": 4000}})
    (each,) = incoming([(0, 100, 5)])
    chosen = [
        make_rule(RuleName.PAPER, WIDE, 0, settings=settings).choose(each)
        for settings in (Settings(), generous)
    ]
    assert chosen == [0, 1]


@pytest.mark.parametrize("name", [RuleName.DUALPOOL, RuleName.PAPER])
def test_a_batch_is_routed_by_its_largest_prompt(name):
    (each,) = incoming([(0, 170, 1)], max_tokens=1)
    one = each.asked.measure
    every = replace(one, text_bytes=100 * one.text_bytes)
    asked = replace(each.asked, sequences=100, whole=every)
    assert make_rule(name, WIDE, 0).choose(each._replace(asked=asked)) == 0


def test_a_refusal_teaches_no_tokens():
    rule = make_rule(RuleName.PAPER, WIDE, 0)
    (each,) = incoming([(0, 3000, 5)])
    rule.learn(each, 0, Outcome.REFUSED, 0)
    assert rule._estimator.learnt().categories == {}


def test_one_pool_leaves_nothing_to_choose():
    alone = TWO.one_pool(16)
    assert [each.name for each in alone.pools] == ["long"]
    assert alone.gpus == TWO.gpus
