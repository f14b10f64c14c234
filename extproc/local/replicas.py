"""Reads whether the replicas of a service hold the same, with `state: redis://`."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
_SETTLE_S: Final = 10.0
"""How long the last observations may take to reach all replicas."""
_POLL_S: Final = 0.2
_LEARNT: Final = ("categories", "models", "limits", "tenants")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """What the replicas hold after a run.

    count: as they reported in their log; answered: of them, to us. equal: whether all that answered
    have read the same log to the same entry, and show the same figures of what they learnt.
    """

    count: int
    answered: int
    equal: bool


async def read_replicas(session: aiohttp.ClientSession, urls: Sequence[str]) -> Replicas | None:
    """Ask all services until they hold the same, or for some seconds; None if they share nothing.

    A service that does not answer is left out.
    """
    until_s = time.monotonic() + _SETTLE_S
    while True:
        answers = await asyncio.gather(*(_state(session, url) for url in urls))
        states = [state for state in answers if state]
        shared = [state["state"] for state in states if "replicas" in state.get("state", ())]
        if not shared:
            return None
        found = Replicas(
            count=max(each["replicas"] for each in shared),
            answered=len(shared),
            equal=len(states) == len(shared) and _are_equal(states),
        )
        if found.equal or time.monotonic() > until_s:
            return found
        await asyncio.sleep(_POLL_S)


async def _state(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    try:
        async with session.get(f"{url}/state", timeout=_TIMEOUT) as response:
            state = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _are_equal(states: Sequence[Mapping[str, Any]]) -> bool:
    first, *others = states
    if any(state["state"]["pending"] for state in states):
        return False
    return all(_held(state) == _held(first) for state in others)


def _held(state: Mapping[str, Any]) -> list[object]:
    return [state["state"]["position"], *(state.get(key) for key in _LEARNT)]
