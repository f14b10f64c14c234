"""What the servers of each pool state of themselves: their models, and the window of these.

Invariant: what is kept of an answer is bounded, whatever it holds.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from extproc.budget.category import escape_reserved
from extproc.routing.pools import Pool
from extproc.routing.rows import Row, split_names

MOST_WINDOW: Final = 1 << 24
"""The largest max_model_len that is believed."""
MOST_NAMES: Final = 1024
MOST_NAME_CHARS: Final = 256
MOST_POOL_NAMES: Final = 4096
"""Of all servers of a pool together; those of further servers are left out."""
_MOST_CHARS: Final = 1 << 16  # of all names of a server
_MOST_SHOWN: Final = 100
_MOST_TOLD: Final = 10


class _Card(msgspec.Struct, gc=False):
    id: str
    max_model_len: int | None = None
    parent: str | None = None


class _Cards(msgspec.Struct, gc=False):
    data: list[_Card]


_DECODER: Final = msgspec.json.Decoder(_Cards)


class Stated(msgspec.Struct, frozen=True):
    """What one server states."""

    window: int = 0
    """The least max_model_len of its models, in tokens; 0 if it states none."""
    models: frozenset[str] = frozenset()
    adapters: frozenset[str] = frozenset()
    """The names that another model is the parent of, as of vLLM's LoRA adapters."""
    is_whole: bool = True
    """Whether these are all names: too many, and names that are too long, are left out."""

    @property
    def names(self) -> frozenset[str]:
        """All names by which requests can ask for something."""
        return self.models | self.adapters


def read_models(answer: bytes) -> Stated | None:
    """Read a server's answer to /v1/models; None if it lists no model, whatever it holds."""
    try:
        cards = _DECODER.decode(answer).data
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    kept, chars = list[_Card](), 0
    for card in cards[:MOST_NAMES]:
        chars += len(card.id)
        if chars > _MOST_CHARS:
            break
        if 0 < len(card.id) <= MOST_NAME_CHARS:
            kept.append(card)
    if not kept:
        return None
    windows = (card.max_model_len or 0 for card in cards)
    adapters = frozenset(card.id for card in kept if card.parent)
    return Stated(
        window=min((window for window in windows if 0 < window <= MOST_WINDOW), default=0),
        models=frozenset(card.id for card in kept) - adapters,
        adapters=adapters,
        is_whole=len(kept) == len(cards),
    )


class Found(msgspec.Struct, frozen=True):
    """What the servers of a pool state together, those that have answered."""

    servers: int = 0
    """All of its servers, whether they have answered or not."""
    answered: int = 0
    windows: Mapping[int, int] = {}
    """The windows that they state, the least first, with how many servers state each."""
    models: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    """The names that only some of the servers have."""
    common: frozenset[str] = frozenset()
    """The names that all of them have."""
    is_whole: bool = True

    @property
    def window(self) -> int:
        """The window that all of its servers have; 0 if it is not known."""
        return next(iter(self.windows), 0)


class Discovery:
    """Is told what all servers state; a server has any key, and the last word of it counts."""

    def __init__(self) -> None:
        self._pools: dict[str, dict[Hashable, Stated | None]] = {}
        self.version = 0
        """Changes whenever what is known does."""

    def keep(self, pools: Iterable[str]) -> None:
        """Forget what is known of all other pools."""
        kept = {name: self._pools[name] for name in pools if name in self._pools}
        self.version += len(self._pools) - len(kept)
        self._pools = kept

    def set_servers(self, pool: str, servers: Iterable[Hashable]) -> None:
        """State which servers a pool has; what is known of others is forgotten."""
        known = self._pools.get(pool, {})
        now = {server: known.get(server) for server in servers}
        if now != known:
            self._pools[pool] = now
            self.version += 1

    def tell(self, pool: str, server: Hashable, stated: Stated) -> None:
        """Take what a server states now."""
        servers = self._pools.get(pool, {})
        if server in servers and servers[server] != stated:
            servers[server] = stated
            self.version += 1

    def names(self, pool: str, server: Hashable) -> frozenset[str]:
        """Return the names that a server states; none if it has not answered."""
        stated = self._pools.get(pool, {}).get(server)
        return stated.names if stated else frozenset()

    def found(self) -> dict[str, Found]:
        """Return what is known of each pool."""
        return {name: _together(list(servers.values())) for name, servers in self._pools.items()}


def _together(servers: Sequence[Stated | None]) -> Found:
    known = [each for each in servers if each is not None]
    if not known:
        return Found(servers=len(servers))
    windows = Counter(each.window for each in known if each.window)
    common = known[0].names.intersection(*(each.names for each in known))
    names, adapters, is_whole = set[str](), set[str](), all(each.is_whole for each in known)
    for each in known:
        if len(names) > MOST_POOL_NAMES:
            is_whole = False
            break
        names |= each.names
        adapters |= each.adapters
    return Found(
        servers=len(servers),
        answered=len(known),
        windows=dict(sorted(windows.items())),
        models=tuple(sorted(names - adapters)),
        adapters=tuple(sorted(adapters)),
        apart=tuple(sorted(names - common)),
        common=common,
        is_whole=is_whole,
    )


class Discord(msgspec.Struct, frozen=True):
    """In what a pool's servers disagree: with the settings, and among themselves."""

    windows: tuple[int, ...] = ()
    """Those that the servers state, if one of them is not that of the settings."""
    missing: tuple[str, ...] = ()
    """Names of the row that some server does not have."""
    unlisted: tuple[str, ...] = ()
    """Names that some server has, and the row does not."""
    apart: tuple[str, ...] = ()
    """Names that only some of the servers have."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many things disagree, by kind."""
        return {
            "window": int(bool(self.windows)),
            "servers": max(0, len(self.windows) - 1),
            "missing": len(self.missing),
            "unlisted": len(self.unlisted),
            "apart": len(self.apart),
        }


def compare(found: Found, window: int, models: Sequence[str]) -> Discord:
    """Compare what is found of a pool with its window in the settings and its row's models."""
    windows = tuple(found.windows)
    row = Row.of(models, (Pool("", window, window),))
    listed = split_names(models)[0] if found.answered and found.is_whole else ()
    names = (*found.models, *found.adapters)
    return Discord(
        windows=windows if windows not in ((), (window,)) else (),
        missing=tuple(name for name in listed if name not in found.common),
        unlisted=tuple(name for name in names if not row.has(escape_reserved(name))),
        apart=found.apart if found.is_whole else (),
    )


def describe_discord(discord: Discord, window: int, used: int) -> dict[str, str]:
    """Return one line for each kind of disagreement; `used` is the window that counts."""
    told: dict[str, str] = {}
    if discord.windows:
        stated = " and ".join(map(str, discord.windows[:_MOST_TOLD]))
        told["window"] = (
            f"its servers state max_model_len {stated}, the settings {window}: {used} counts"
        )
    for kind, names, text in (
        ("missing", discord.missing, "not all of its servers have what its row lists"),
        ("unlisted", discord.unlisted, "its servers have what its row does not list"),
        ("apart", discord.apart, "only some of its servers have"),
    ):
        if names:
            told[kind] = f"{text}: {_listed(names)}"
    return told


def _listed(names: Sequence[str]) -> str:
    # As JSON, so that no name can end the line.
    texts = [msgspec.json.encode(name).decode() for name in names[:_MOST_TOLD]]
    more = len(names) - _MOST_TOLD
    return ", ".join(texts) + (f" and {more} more" if more > 0 else "")


def describe_found(found: Found, discord: Discord) -> dict[str, object]:
    """Return what is known of a pool as GET /state shows it."""
    return {
        "servers": found.servers,
        "answered": found.answered,
        "max_model_len": {str(window): count for window, count in found.windows.items()},
        "models": _first(found.models),
        "adapters": _first(found.adapters),
        "missing": _first(discord.missing),
        "unlisted": _first(discord.unlisted),
        "apart": _first(discord.apart),
    }


def _first(names: Sequence[str]) -> list[str]:
    more = len(names) - _MOST_SHOWN
    return [*names[:_MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])]
