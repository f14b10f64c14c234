"""The windows that the pools' servers state: which count, and what disagrees.

Invariant: each change is logged once. No I/O: `discovery` is told the answers of servers.
"""

import logging
from collections.abc import Iterator, Mapping

from extproc.config.settings import PoolSettings, RowSettings, Settings
from extproc.config.windows import capped
from extproc.routing.load.discovery import (
    Discord,
    Discovery,
    Found,
    compare,
    describe_discord,
    describe_found,
)

_log = logging.getLogger(__name__)


class Windows:
    """What the servers state of themselves, beside what the settings say."""

    def __init__(self, settings: Settings) -> None:
        self.discovery = Discovery()
        self._settings = settings
        self._seen = self.discovery.version
        self._pools: Mapping[str, Found] = {}
        self._found: Mapping[str, int] = {}
        self._discords: Mapping[str, Discord] = {}
        self._told: Mapping[str, Mapping[str, str]] = {}

    def use(self, settings: Settings) -> None:
        """Go on with other settings; what other servers have stated is forgotten."""
        before = {pool.name: pool.address for pool in self._settings.pools}
        same = (pool.name for pool in settings.pools if before.get(pool.name) == pool.address)
        self.discovery.keep(same if settings.load.discover else ())
        self._settings = settings
        self._look()

    def look(self) -> bool:
        """Take what the servers have stated; return whether other windows count now."""
        if self._seen == self.discovery.version:
            return False
        before = self.capped(self._settings)
        self._look()
        return self.capped(self._settings) != before

    def capped(self, settings: Settings) -> Settings:
        """Return settings with the smaller ones of their windows and those that servers state."""
        return capped(settings, self._found)

    def sizes(self) -> Iterator[tuple[str, str, int]]:
        """Yield the windows of each pool by whose they are: settings, servers, used."""
        if not self._settings.load.discover:
            return
        used = self.capped(self._settings)
        for stated, pool in zip(self._settings.pools, used.pools, strict=True):
            yield pool.name, "settings", stated.max_model_len
            yield pool.name, "used", pool.max_model_len
            if pool.name in self._found:
                yield pool.name, "servers", self._found[pool.name]

    def counts(self) -> Iterator[tuple[str, str, int]]:
        """Yield how many things disagree, by pool and kind."""
        for name, discord in self._discords.items():
            for kind, count in discord.counts.items():
                yield name, kind, count

    def describe(self) -> dict[str, object]:
        """Return what is known of each pool, for GET /state."""
        used = {pool.name: pool.max_model_len for pool in self.capped(self._settings).pools}
        return {
            name: {"used": used[name], **describe_found(self._pools[name], discord)}
            for name, discord in self._discords.items()
        }

    def _look(self) -> None:
        self._seen = self.discovery.version
        self._pools = self.discovery.found()
        self._found = {name: found.window for name, found in self._pools.items() if found.window}
        placed = [each for each in _placed(self._settings) if each[1].name in self._pools]
        self._discords = {
            pool.name: compare(self._pools[pool.name], pool.max_model_len, row.models)
            for row, pool in placed
        }
        used = {pool.name: pool.max_model_len for pool in self.capped(self._settings).pools}
        told = {
            pool.name: describe_discord(
                self._discords[pool.name], pool.max_model_len, used[pool.name]
            )
            for _, pool in placed
        }
        self._tell(told)

    def _tell(self, told: Mapping[str, Mapping[str, str]]) -> None:
        """Log what disagrees now and did not before, and the reverse."""
        before, self._told = self._told, told
        for name, texts in told.items():
            for kind, text in texts.items():
                if before.get(name, {}).get(kind) != text:
                    _log.warning("pool %s: %s", name, text)
        for name, texts in before.items():
            for kind, text in texts.items():
                if kind not in told.get(name, {}):
                    _log.info("pool %s: no longer: %s", name, text)


def _placed(settings: Settings) -> Iterator[tuple[RowSettings, PoolSettings]]:
    """Yield each pool with its row."""
    for row in settings.fleet:
        yield from ((row, pool) for pool in row.pools)
