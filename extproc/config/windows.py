"""The settings with the windows that the pools' servers really have."""

from collections.abc import Mapping, Sequence

from extproc.config.settings import PoolSettings, Settings


def capped(settings: Settings, found: Mapping[str, int]) -> Settings:
    """Return settings in which no pool has a larger window than was found, in tokens.

    A window that is not above that of the row's next smaller pool does not count: nothing could be
    sent to that pool.
    """
    rows = tuple(
        row.model_copy(update={"pools": _capped(row.pools, found)}) for row in settings.rows
    )
    pools = tuple(pool for row in rows for pool in row.pools) or _capped(settings.pools, found)
    same = pools == settings.pools
    return settings if same else settings.model_copy(update={"rows": rows, "pools": pools})


def _capped(pools: Sequence[PoolSettings], found: Mapping[str, int]) -> tuple[PoolSettings, ...]:
    capped, below = list[PoolSettings](), 0
    for pool in pools:
        window = min(pool.max_model_len, found.get(pool.name, pool.max_model_len))
        if below < window < pool.max_model_len:
            threshold = min(pool.threshold, window)
            pool = pool.model_copy(update={"max_model_len": window, "threshold": threshold})  # noqa: PLW2901
        capped.append(pool)
        below = pool.max_model_len
    return tuple(capped)
