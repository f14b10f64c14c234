"""What live services have seen, for --from.

Lengths are those of GET /lengths. What happened in the last hour is read from the stream of figures
that the service's page shows (GET /page/events).
"""

import http.client
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from itertools import islice
from statistics import fmean
from typing import Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import msgspec

from extproc.budget.lengths import LengthHistogram
from extproc.config.addresses import http_url
from extproc.config.errors import hide_secrets
from extproc.planner.traffic.documents import read_lengths
from extproc.planner.traffic.lengths import InputError
from extproc.planner.traffic.live import LiveHour
from extproc.planner.traffic.rows import Reading

_TIMEOUT_S: Final = 10.0
_MOST_BYTES: Final = 1 << 28
_MOST_LINES: Final = 64  # the first two events take six
_MOST_LINE_BYTES: Final = 1 << 22
_MINUTE_POINTS: Final = 6  # of the hour's series, one every ten seconds


class _Pool(msgspec.Struct):
    name: str
    reasons: dict[str, float]


class _Now(msgspec.Struct):
    seconds: float
    judged: float
    misrouted: float
    pools: list[_Pool]


class _Series(msgspec.Struct):
    pools: dict[str, list[float]]


def read_services(addresses: Sequence[str]) -> Reading:
    """Return the lengths that these live services have seen together. Raises InputError."""
    histogram = LengthHistogram()
    for address in addresses:
        try:
            histogram.merge(LengthHistogram.from_json(_fetch(address)))
        except ValueError as error:
            raise InputError(address, 0, f"{error}; allowed: a service's GET /lengths") from None
    return read_lengths(histogram, " + ".join(map(hide_secrets, addresses)))


def read_hour(addresses: Sequence[str]) -> LiveHour | None:
    """Return what these services counted together; None if one does not tell, or counted none."""
    hours = [_hour(address) for address in addresses]
    known = [hour for hour in hours if hour]
    if len(known) < len(hours):
        return None
    pools = Counter[str]()
    for hour in known:
        pools.update(hour.by_pool)
    total = LiveHour(
        seconds=max(hour.seconds for hour in known),
        by_pool=dict(pools),
        misrouted=sum(hour.misrouted for hour in known),
        judged=sum(hour.judged for hour in known),
        busiest_per_s=sum(hour.busiest_per_s for hour in known),
    )
    return total if total.requests else None


def _fetch(address: str) -> bytes:
    try:
        parts = urlsplit(http_url(address))
    except ValueError as error:
        text = f"{error}; allowed: for example 127.0.0.1:8081"
        raise InputError(address, 0, text) from None
    url = parts._replace(path=f"{parts.path.rstrip('/').removesuffix('/lengths')}/lengths").geturl()
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - checked above
            # Bounded: the address may be of anything that streams for ever.
            data: bytes = answer.read(_MOST_BYTES)
    except HTTPError as error:
        error.close()  # the error is the open response
        if error.code == HTTPStatus.UNAUTHORIZED:
            fix = f"curl -H 'authorization: Bearer TOKEN' {url} > FILE; then give FILE instead"
            raise InputError(address, 0, f"the service requires its token: {fix}") from None
        text = f"GET {url} returned HTTP {error.code}; allowed: the address of listen.http"
        raise InputError(address, 0, text) from None
    except (OSError, http.client.HTTPException) as error:
        raise InputError(address, 0, f"{_reason(error)}; is the service running?") from None
    return data


def _reason(error: OSError | http.client.HTTPException) -> str:
    """Return what happened, without the number and the name of the exception."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(cause) or type(cause).__name__


def _hour(address: str) -> LiveHour | None:
    parts = urlsplit(http_url(address))
    path = parts.path.rstrip("/").removesuffix("/lengths")
    url = parts._replace(path=f"{path}/page/events").geturl()
    try:
        # The caller has read /lengths of this address, so its scheme is HTTP.
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return _read(iter(lambda: answer.readline(_MOST_LINE_BYTES), b""))
    except (OSError, http.client.HTTPException, ValueError):
        return None


def _read(lines: Iterable[bytes]) -> LiveHour | None:
    """Read the first events of both kinds. Raises ValueError for others than the service's."""
    found = dict(_events(islice(lines, _MOST_LINES)))
    if found.keys() != {"now", "hour"}:
        return None
    now = msgspec.json.decode(found["now"], type=_Now)
    series = msgspec.json.decode(found["hour"], type=_Series)
    if now.seconds <= 0:
        return None
    return LiveHour(
        seconds=now.seconds,
        by_pool={pool.name: round(sum(pool.reasons.values())) for pool in now.pools},
        misrouted=round(now.misrouted),
        judged=round(now.judged),
        busiest_per_s=_busiest(series),
    )


def _events(lines: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield events until there is one of each kind that is needed."""
    name, missing = "", {"now", "hour"}
    for line in lines:
        field, _, value = line.rstrip(b"\n").partition(b": ")
        if field == b"event":
            name = value.decode("latin-1")
        elif field == b"data" and name in missing:
            yield name, value
            missing.discard(name)
            if not missing:
                return


def _busiest(series: _Series) -> float:
    rates = [sum(point) for point in zip(*series.pools.values(), strict=False)]
    last = max(0, len(rates) - _MINUTE_POINTS)
    minutes = [rates[first : first + _MINUTE_POINTS] for first in range(last + 1)]
    return max(fmean(minute) for minute in minutes) if rates else 0.0
