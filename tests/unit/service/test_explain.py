"""The decision for one body, explained."""

import json

from tokenizers import Tokenizer, models, pre_tokenizers

from extproc.config.settings import ModelSettings, PoolSettings, RowSettings, Settings
from extproc.request.apis import Endpoint
from extproc.service.explain import describe, explain

SETTINGS = Settings()
BODY = {"model": "m", "prompt": "Where do owls sleep at noon?", "max_tokens": 5}


def explained(body):
    return explain(json.dumps(body).encode(), Endpoint.COMPLETION, SETTINGS)


def test_a_short_body_fits_the_short_pool():
    found = explained(BODY)
    assert (found.pool, found.reason, found.category) == ("short", "fits", "prose/m")
    assert (found.text_bytes, found.output_tokens, found.basis) == (28, 5, "prior")
    assert found.budget_tokens == found.prompt_tokens + found.margin_tokens + 5


def test_a_large_output_limit_needs_the_long_pool():
    assert explained(BODY | {"max_tokens": 9000}).pool == "long"


def test_token_ids_are_counted_exactly():
    found = explained(BODY | {"prompt": [1, 2, 3]})
    assert (found.token_ids, found.text_bytes) == (3, 0)


def test_what_the_settings_state_of_a_model_is_used():
    gemma = ModelSettings(name="gemma*", image_tokens=256)
    image = {"type": "image_url", "image_url": {"url": "https://images.example/owl.png"}}
    body = {"model": "gemma-3", "messages": [{"role": "user", "content": [image, image]}]}
    found = explain(json.dumps(body).encode(), Endpoint.CHAT, Settings(models=(gemma,)))
    assert found.token_ids == 512


def test_tokens_that_the_models_tokenizer_counted_are_named(tmp_path):
    file = tmp_path / "tokenizer.json"
    words = Tokenizer(models.WordLevel({"owl": 0, "?": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(file))
    settings = Settings(models=(ModelSettings(name="m", tokenizer=str(file)),))
    body = BODY | {"prompt": "owl " * 2030, "max_tokens": 6000}
    found = explain(json.dumps(body).encode(), Endpoint.COMPLETION, settings)
    assert found.counted_tokens == 2030
    assert "0 token ids, 2030 tokens counted" in describe(found)


def test_an_unreadable_body_goes_to_the_largest_pool_with_the_reason():
    found = explain(b"{", Endpoint.COMPLETION, SETTINGS)
    assert (found.pool, found.reason) == ("long", "unreadable")
    assert describe(found) == f"unreadable ({found.unreadable}): pool long, the largest"


def test_the_text_has_a_line_for_each_figure():
    words = [line.split()[0] for line in describe(explained(BODY)).splitlines()]
    assert words == ["api", "class", "text", "ratio", "prompt", "output", "budget", "pool"]


def rows(*models):
    pools = (PoolSettings(name="a", max_model_len=8192),)
    return Settings(rows=(RowSettings(models=models, pools=pools),))


def test_a_model_that_no_row_names_has_no_pool():
    found = explain(json.dumps(BODY).encode(), Endpoint.COMPLETION, rows("n"))
    assert (found.pool, found.reason, found.category) == ("", "unlisted", "")
    assert describe(found) == "no row of pools has its model: unlisted"


def test_a_body_that_cannot_be_read_has_no_pool_where_its_row_is_not_known():
    found = explain(b"{", Endpoint.COMPLETION, rows("n"))
    assert describe(found).endswith("no pool, as its row is not known")
