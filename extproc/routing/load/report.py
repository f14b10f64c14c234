"""What one server reports of its load: the few lines of its metrics that matter.

The names are those of vLLM 0.8 to 0.33 and of SGLang. Series of one name are added up: a server
with several engines has one for each.
"""

import math
import re
from typing import Final

import msgspec

_RUNNING: Final = (b"vllm:num_requests_running", b"sglang:num_running_reqs")
_WAITING: Final = (b"vllm:num_requests_waiting", b"sglang:num_queue_reqs")
_FINISHED: Final = (b"vllm:request_success_total", b"sglang:num_requests_total")
_KV_USAGE: Final = (
    b"vllm:kv_cache_usage_perc",
    b"vllm:gpu_cache_usage_perc",  # the same, before vLLM 0.10 or so
    b"sglang:token_usage",
)
_PREEMPTIONS: Final = (
    b"vllm:num_preemptions_total",
    b"sglang:num_retracted_requests_total",
    b"sglang:num_retracted_reqs_total",
)
_MOST: Final = 1e15
_MOST_SERIES: Final = 1024

# A line is NAME{LABELS} VALUE or NAME VALUE, and a time may follow. A name that goes on, such as
# vllm:num_requests_waiting_by_reason, is another one. A label's value may hold a brace.
_VALUE: Final = rb"(?:\{[^\n]*\})? ([^ \n]{1,32})(?: [0-9]{1,16})?\r?$"


class Report(msgspec.Struct, frozen=True, gc=False):
    """The load of a server at one moment."""

    running: float
    """Requests that are computed."""
    waiting: float
    """Requests in its queue, those that were preempted included."""
    finished: float
    """Requests answered since it started."""
    kv_usage: float
    """The share of its KV cache in use, 0 to 1; of several engines the highest. 0 if not stated."""
    preemptions: float
    """Since it started; 0 if not stated."""


def read_report(metrics: bytes) -> Report | None:
    """Read the metrics of a server; None if they do not state its load, whatever they hold."""
    running, waiting, finished = (_sum(metrics, names) for names in (_RUNNING, _WAITING, _FINISHED))
    if running is None or waiting is None or finished is None:
        return None
    usage = _values(metrics, _KV_USAGE)
    return Report(
        running=running,
        waiting=waiting,
        finished=finished,
        kv_usage=min(max(usage), 1.0) if usage else 0.0,
        preemptions=_sum(metrics, _PREEMPTIONS) or 0.0,
    )


def _patterns(names: tuple[bytes, ...]) -> tuple[tuple[bytes, re.Pattern[bytes]], ...]:
    return tuple((b"\n" + name, re.compile(re.escape(name) + _VALUE, re.M)) for name in names)


_PATTERNS: Final[dict[tuple[bytes, ...], tuple[tuple[bytes, re.Pattern[bytes]], ...]]] = {
    names: _patterns(names) for names in (_RUNNING, _WAITING, _FINISHED, _KV_USAGE, _PREEMPTIONS)
}


def _sum(metrics: bytes, names: tuple[bytes, ...]) -> float | None:
    values = _values(metrics, names)
    return sum(values) if values else None


def _values(metrics: bytes, names: tuple[bytes, ...]) -> list[float]:
    """Return the values of the first name that has any; none if one of them cannot be right."""
    for start, line in _PATTERNS[names]:
        values = list[float]()
        at = metrics.find(start)
        # The series of a name follow one another; find() skips all others at memory speed.
        while at >= 0 and len(values) < _MOST_SERIES:
            if found := line.match(metrics, at + 1):
                values.append(_number(found[1]))
            at = metrics.find(start, at + 1)
        if values:
            return values if all(0 <= value <= _MOST for value in values) else []
    return []


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
