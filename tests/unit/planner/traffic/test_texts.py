"""What an estimator sees of prompts without texts."""

import random

import numpy as np
import pytest

from extproc.budget.calibrated import Calibrated
from extproc.budget.category import ContentClass, content_class
from extproc.budget.features import FEATURES, TEXT_FEATURES, text_features
from extproc.budget.prior import MEASURED
from extproc.budget.values import Asked, Observation, Outcome
from extproc.evaluation.texts import read_texts
from extproc.evaluation.tokenizer import Tokenized, load_tokenizers, tokenize
from extproc.planner.traffic.text_kinds import KINDS, TextKind
from extproc.planner.traffic.texts import LADDER, state_limits, write_prompts

TOKENS = np.exp(np.random.default_rng(0).normal(7, 1, 5000)).astype(np.int64).clip(1)


@pytest.fixture(scope="module")
def measured() -> dict[str, Tokenized]:
    pytest.importorskip("bpe_openai")
    tokenizer = load_tokenizers(())[0]()
    return {text.kind: text for text in tokenize(tokenizer, read_texts(None, 0))}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_table_is_what_the_texts_have(kind: TextKind, measured: dict[str, Tokenized]):
    if kind.name not in measured:
        pytest.skip("Python's C headers are not installed")
    text, rng = measured[kind.name], random.Random(1)
    pieces = [text.run(rng.random(), min(400, text.tokens)) for _ in range(200)]
    rates = np.mean([np.array(text_features(e.encode())) / tokens for e, tokens in pieces], axis=0)
    size = np.mean([len(each.encode()) / tokens for each, tokens in pieces])
    # Python's own library is the text of the kind `code`, C's headers that of `c`: versions differ.
    assert size == pytest.approx(kind.bytes_per_token, rel=0.15)
    written = [kind.rates.get(name, 0.0) for name in TEXT_FEATURES]
    assert rates == pytest.approx(written, rel=0.5, abs=0.06)


def test_prompts_have_every_feature():
    assert {len(each.features) for each in write_prompts(TOKENS[:50], 0)} == {len(FEATURES)}


def test_the_seed_decides_the_texts():
    assert list(write_prompts(TOKENS[:50], 1)) == list(write_prompts(TOKENS[:50], 1))
    assert list(write_prompts(TOKENS[:50], 1)) != list(write_prompts(TOKENS[:50], 2))


def test_all_content_classes_occur():
    found = {content_class(each.features) for each in write_prompts(TOKENS, 0)}
    assert found == set(ContentClass) - {ContentClass.MEDIA}


def test_a_prompt_of_one_token_is_written():
    (each,) = write_prompts(np.array([1]), 0)
    assert each.text_bytes >= 1


def test_a_long_prompt_is_seen_in_part():
    (each,) = write_prompts(np.array([100_000]), 0)
    assert 0.8 < each.unseen < 1


def test_the_calibrated_estimator_errs_as_on_real_texts():
    # docs/evaluation.md: 1.2 % in the median, 9 % in one of a hundred.
    estimator = Calibrated(MEASURED, (2048,), target=0.001, categories=64)
    errors = []
    for each, tokens in zip(write_prompts(TOKENS, 0), TOKENS.tolist(), strict=True):
        asked = Asked("m", content_class(each.features).value, each, 512)
        errors.append(abs(estimator.budget(asked).prompt_tokens / tokens - 1))
        estimator.observe(Observation(asked, Outcome.COMPLETE, 2048, tokens, 100))
    assert np.median(errors[1000:]) == pytest.approx(0.012, abs=0.004)
    assert 0.05 < np.percentile(errors[1000:], 99) < 0.12


def test_a_stated_limit_is_one_that_clients_state():
    outputs = np.array([1, 128, 129, 8192, 9000])
    assert state_limits(outputs, 1.0, 0).tolist() == [LADDER[0], 128, 256, 8192, 9000]


def test_a_share_of_the_clients_states_a_limit():
    limits = state_limits(np.full(10_000, 100), 0.3, 0)
    assert (limits > 0).mean() == pytest.approx(0.3, abs=0.02)
