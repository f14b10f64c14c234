"""What differs between two settings."""

from extproc.config.changes import changes, told
from extproc.config.settings import ModelSettings, PoolSettings, Settings

SHORT, LONG = Settings().pools


def pools(*given):
    return Settings().model_copy(update={"pools": given})


def test_the_same_settings_have_no_changes():
    assert changes(Settings(), Settings()) == {}


def test_a_change_is_told_with_its_place_and_both_values():
    changed = changes(Settings(), pools(SHORT.model_copy(update={"threshold": 7000}), LONG))
    assert told(changed) == "pools[0].threshold: 8192 -> 7000"


def test_a_pool_that_is_new_was_absent():
    more = PoolSettings(name="huge", max_model_len=131072)
    assert 'pools[2].name: absent -> "huge"' in told(changes(Settings(), pools(SHORT, LONG, more)))


def test_a_pool_that_is_gone_is_absent():
    assert "pools[1].max_model_len: 65536 -> absent" in told(changes(Settings(), pools(SHORT)))


def test_a_long_text_is_cut():
    line = told(changes(Settings(), Settings(models=(ModelSettings(name="x" * 256),))))
    assert "x…" in line
    assert len(line) < 400


def test_many_changes_are_counted():
    models = tuple(ModelSettings(name=f"m{number}") for number in range(60))
    rest = 60 * len(ModelSettings.model_fields) - 50
    assert told(changes(Settings(), Settings(models=models))).endswith(f"; and {rest} more")
