"""Judges each routing decision of a demo run by the tokens that the request really needed.

A window holds one sequence, so a request is judged by its largest sequence: its largest prompt
plus the output of one sequence (extproc.tokens), however many prompts or `n` it has.
"""

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto

from extproc.local.client import ClientAnswer, Ending
from extproc.local.record import DemoRecord
from extproc.tokens import needed_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingFit:
    """How many requests went to the right pool; `unknown`: their prompt tokens are not known.

    A misrouted request needs more than the max_model_len of its pool: it was refused, its output
    was clamped, or its answer ended before the window was full (harmless). An over-routed request
    would have fitted a smaller pool. too_large: needs more than the largest window.
    """

    known: int
    unknown: int
    refused: int
    clamped: int
    harmless: int
    over_routed: int
    too_large: int

    @property
    def misrouted(self) -> int:
        """Requests that were sent to a pool too small for them."""
        return self.refused + self.clamped + self.harmless


class _RoutingVerdict(Enum):
    RIGHT = auto()
    UNKNOWN = auto()
    REFUSED = auto()
    CLAMPED = auto()
    HARMLESS = auto()
    OVER_ROUTED = auto()
    TOO_LARGE = auto()


def judge_routing(record: DemoRecord) -> RoutingFit:
    """Judge every request of a run."""
    windows = [pool.max_model_len for pool in record.pools]
    verdicts = Counter(
        _judge(answer, record.largest_prompt_tokens(answer), windows, index)
        for index, answers in enumerate(record.by_pool().values())
        for answer in answers
    )
    return RoutingFit(
        known=verdicts.total() - verdicts[_RoutingVerdict.UNKNOWN],
        unknown=verdicts[_RoutingVerdict.UNKNOWN],
        refused=verdicts[_RoutingVerdict.REFUSED],
        clamped=verdicts[_RoutingVerdict.CLAMPED],
        harmless=verdicts[_RoutingVerdict.HARMLESS],
        over_routed=verdicts[_RoutingVerdict.OVER_ROUTED],
        too_large=verdicts[_RoutingVerdict.TOO_LARGE],
    )


def _judge(answer: ClientAnswer, prompt: int, windows: list[int], index: int) -> _RoutingVerdict:
    if not prompt:
        return _RoutingVerdict.UNKNOWN
    needed = _needed(answer, prompt, windows[index])
    if needed > windows[-1]:
        return _RoutingVerdict.TOO_LARGE
    if needed > windows[index]:
        return _harm(answer)
    if index > 0 and needed <= windows[index - 1]:
        return _RoutingVerdict.OVER_ROUTED
    return _RoutingVerdict.RIGHT


def _needed(answer: ClientAnswer, prompt: int, window: int) -> int:
    output = max(1, answer.longest_tokens)
    # finish_reason is "length" for the client's limit and for the window alike; only a full window
    # hides how long the answer would have been.
    cut = answer.finish == "length" and prompt + output >= window
    return needed_tokens(prompt, answer.item.max_tokens, output + cut)


def _harm(answer: ClientAnswer) -> _RoutingVerdict:
    if answer.ending is Ending.REFUSED:
        return _RoutingVerdict.REFUSED
    return _RoutingVerdict.CLAMPED if answer.finish == "length" else _RoutingVerdict.HARMLESS
