"""Settings with the windows that servers have."""

import pytest

from extproc.config.settings import PoolSettings, RowSettings, Settings
from extproc.config.windows import capped


def pools(*windows, prefix=""):
    return tuple(
        PoolSettings(name=f"{prefix}{number}", max_model_len=window)
        for number, window in enumerate(windows)
    )


def windows(settings):
    return [pool.max_model_len for pool in settings.pools]


@pytest.mark.parametrize(
    ("found", "used"),
    [
        ({}, [8192, 16_384, 65_536]),
        ({"0": 4096}, [4096, 16_384, 65_536]),
        ({"0": 8192, "1": 32_768, "2": 1 << 20}, [8192, 16_384, 65_536]),
        ({"0": 4096, "1": 8000, "2": 9000}, [4096, 8000, 9000]),
        # What is not above the next smaller pool does not count.
        ({"1": 8192}, [8192, 16_384, 65_536]),
        ({"0": 4096, "1": 4096, "2": 4096}, [4096, 16_384, 65_536]),
        ({"1": 9000, "2": 9000}, [8192, 9000, 65_536]),
    ],
)
def test_the_smaller_window_counts_while_the_order_stays(found, used):
    assert windows(capped(Settings(pools=pools(8192, 16_384, 65_536)), found)) == used


def test_a_threshold_is_at_most_the_window():
    short = PoolSettings(name="short", max_model_len=8192, threshold=6000)
    settings = Settings(pools=(short, *pools(65_536)))
    assert capped(settings, {"short": 7000}).pools[0].threshold == 6000
    assert capped(settings, {"short": 5000}).pools[0].threshold == 5000
    assert capped(settings, {"0": 9000}).pools[1].threshold == 9000


def test_settings_that_agree_are_the_same_object():
    settings = Settings()
    assert capped(settings, {"short": 8192, "other": 1}) is settings


def test_the_pools_of_rows_are_capped_in_both_places():
    rows = tuple(
        RowSettings(models=(model,), pools=pools(4096, 8192, prefix=model)) for model in "ab"
    )
    settings = capped(Settings(rows=rows), {"b0": 2048})
    assert windows(settings) == [4096, 8192, 2048, 8192]
    assert [pool for row in settings.rows for pool in row.pools] == list(settings.pools)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
