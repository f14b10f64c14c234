"""What a process has learnt, and how its categories are named."""

from msgspec.structs import replace

from extproc.budget.bounded import IDLE
from extproc.budget.category import Labels
from extproc.budget.learner import Learner, name_category
from extproc.budget.measure import measure
from extproc.budget.values import Asked, Measure, Observation, Outcome
from extproc.build import build_estimator
from extproc.config.settings import Settings
from tests.support.conversation import paper

ASKED = Asked("m", "prose", Measure(4000), 0)
PROMPT = measure(b"word " * 800, 4000, messages=1)


def learner(labels=8):
    return Learner(paper(), Labels(labels))


def test_a_category_is_named_with_its_model():
    assert name_category(ASKED) == "prose/m"


def test_a_category_is_other_until_it_was_taught():
    given = learner()
    assert given.label(ASKED) == "other"
    given.learn(Observation(ASKED, Outcome.COMPLETE, 8192, 1000, 1))
    assert given.label(ASKED) == "prose/m"


def test_beyond_the_permitted_labels_learning_goes_on():
    given = learner(labels=2)
    given.learn(Observation(replace(ASKED, model="other"), Outcome.COMPLETE, 8192, 800, 1))
    given.learn(Observation(ASKED, Outcome.COMPLETE, 8192, 800, 1))
    assert given.label(ASKED) == "other"
    assert given.budget(ASKED).prompt_tokens != 1000
    assert "prose/m" in given.learnt().categories


def test_lengths_are_counted_by_the_category_that_metrics_name():
    given = learner()
    given.learn(Observation(ASKED, Outcome.COMPLETE, 8192, 20, 5))
    given.learn(Observation(ASKED, Outcome.CUT, 8192, 20, 5))
    assert list(given.lengths.rows()) == [("lengths", "prose/m", 20, 5, 2)]


def test_the_lengths_of_a_label_that_is_replaced_are_those_of_other():
    given, gone = learner(labels=2), []
    given.on_replaced = gone.append
    new = replace(ASKED, model="new")
    for asked in (ASKED, *[new] * (IDLE + 2)):
        given.learn(Observation(asked, Outcome.COMPLETE, 8192, 20, 5))
    assert gone == ["prose/m"]
    assert {row.category: row.seen for row in given.lengths.rows()} == {
        "other": IDLE + 2,
        "prose/new": 1,
    }


def test_a_refused_request_has_no_lengths():
    given = learner()
    given.learn(Observation(ASKED, Outcome.REFUSED, 8192))
    assert list(given.lengths.rows()) == []


def test_what_was_learnt_is_that_of_the_estimator():
    given = learner()
    given.learn(Observation(ASKED, Outcome.COMPLETE, 8192, 800, 1))
    assert given.learnt().categories["prose/m"]["samples"] == 1
    assert list(given.learnt_parts()) == [given.learnt()]


def test_fewer_labels_fold_the_lengths_of_the_others():
    given, gone = learner(labels=3), []
    given.on_replaced = gone.append
    for model in ("a", "b"):
        given.learn(Observation(replace(ASKED, model=model), Outcome.COMPLETE, 8192, 20, 5))
    given.relabel(2, 8)
    assert gone == ["prose/a"]
    assert {row[1] for row in given.lengths.rows()} == {"other", "prose/b"}


def test_a_counted_prompt_is_no_answer_of_a_category():
    given = Learner(build_estimator(Settings()), Labels(8))
    assert not given.knows("m")
    given.learn(Observation(replace(ASKED, measure=PROMPT), Outcome.COUNTED, 8192, 1000))
    assert list(given.lengths.rows()) == []
    assert given.label(ASKED) == "other"
    assert "m" in given.learnt().models


def test_counted_prompts_would_teach_the_paper_nothing():
    assert learner().knows("m")
