"""Build what asks the pools' servers, only where they are asked: aiohttp takes 10 MB of memory."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from extproc.budget.values import Observation
from extproc.build import build_rules
from extproc.config.settings import PoolSettings, Settings
from extproc.routing.load.discovery import Discovery
from extproc.routing.load.pool_load import Tracker
from extproc.routing.load.priming import Priming
from extproc.service.certificates import CertificateError
from extproc.service.files import pool_tls
from extproc.service.polling import (
    LoadQuestion,
    ModelsQuestion,
    Pace,
    Polled,
    Poller,
    TokenizeQuestion,
)

# A server that computes a large prompt may take seconds to answer.
_MODELS_PACE: Final = Pace(every_s=10.0, timeout_s=5.0, longest_s=60.0)

# To count a sample takes a server some milliseconds, which it has between others for its requests.
_TOKENIZE_PACE: Final = Pace(every_s=0.2, timeout_s=5.0, longest_s=60.0)

_log = logging.getLogger(__name__)

Polls = Counter[tuple[str, str, str]]
"""The questions by pool, question and outcome."""


def build_load_poller(
    settings: Settings, tracker: Tracker, told: Callable[[], None], polls: Polls
) -> Poller:
    """Build what asks for the load. Raises CertificateError if a pool's tls_ca cannot be read."""
    load = settings.load
    pace = Pace(load.every_ms / 1000, load.timeout_ms / 1000)
    return Poller(list(map(_polled, settings.pools)), pace, LoadQuestion(tracker), told, polls)


def build_models_poller(
    settings: Settings, discovery: Discovery, told: Callable[[], None], polls: Polls
) -> Poller:
    """Build what asks for models and windows."""
    # Of a shadow, the pools but the largest need not be there.
    polled = list(_reachable(settings.routed.pools))
    return Poller(polled, _MODELS_PACE, ModelsQuestion(discovery), told, polls)


def build_tokenize_poller(
    settings: Settings,
    discovery: Discovery,
    knows: Callable[[str], bool],
    teach: Callable[[Observation], None],
    polls: Polls,
) -> Poller:
    """Build what has the servers count samples."""
    priming = Priming(discovery, build_rules(settings).row, knows, teach)
    # The largest pools alone: see routing.load.priming.
    polled = list(_reachable([row.pools[-1] for row in settings.routed.fleet]))
    return Poller(polled, _TOKENIZE_PACE, TokenizeQuestion(priming), lambda: None, polls)


def _reachable(pools: Sequence[PoolSettings]) -> Iterator[Polled]:
    """Yield the pools whose tls_ca the service can read: for the others the settings count."""
    for pool in pools:
        try:
            yield _polled(pool)
        except CertificateError as error:
            _log.info("%s is not asked for its window: %s", pool.name, error)


def _polled(pool: PoolSettings) -> Polled:
    tls = pool_tls(pool)
    return Polled(pool.name, pool.addresses, tls, pool.tls_name if tls else "")
