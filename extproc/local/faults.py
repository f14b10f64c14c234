"""Finds answers that were lost or altered between a pool and its client.

With recordings of both sides of Envoy every byte is compared; without them an answer is only
checked against its own request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from extproc.local.client import ClientAnswer, Ending
from extproc.local.record import DemoRecord
from extproc.local.recorder import Recording

_Check = Callable[[ClientAnswer, Sequence[Recording]], str]


@dataclass(frozen=True, slots=True)
class Fault:
    """A request whose answer was lost or altered, and how."""

    request_id: str
    what: str


def lost_answers(record: DemoRecord) -> tuple[Fault, ...]:
    """Return the answers that did not reach their client whole."""
    return _faults(record, lost if record.recorded else unanswered)


def altered_answers(record: DemoRecord) -> tuple[Fault, ...]:
    """Return the answers that reached their client changed."""
    return _faults(record, altered if record.recorded else contradictory)


def _faults(record: DemoRecord, check: _Check) -> tuple[Fault, ...]:
    found = (
        (answer.item.request_id, check(answer, record.recordings.get(answer.item.request_id, ())))
        for answer in record.answers
    )
    return tuple(Fault(request_id, what) for request_id, what in found if what)


def lost(answer: ClientAnswer, recordings: Sequence[Recording]) -> str:
    """Return why an answer is lost; "" if the client received all that the pool sent."""
    if ended := _broken_off(answer):
        return ended
    if not recordings:
        return f"status {answer.status}, but the request reached no pool"
    return ""


def unanswered(answer: ClientAnswer, _: Sequence[Recording]) -> str:
    """Return why an answer is lost, judged by the client's side alone; "" if it is not."""
    return f"status {answer.status}" if answer.ending is Ending.FAILED else _broken_off(answer)


def _broken_off(answer: ClientAnswer) -> str:
    if answer.ending in {Ending.BROKEN, Ending.TIMEOUT}:
        return f"{answer.ending.value}: {answer.error or 'the answer stopped before its end'}"
    return ""


def contradictory(answer: ClientAnswer, _: Sequence[Recording]) -> str:
    """Return what in a complete answer contradicts its request; "" if nothing does."""
    if answer.ending is not Ending.COMPLETE:
        return ""
    # vLLM always reports usage in a document, in a stream only if asked.
    asked = answer.item.include_usage or not answer.item.stream
    if asked != bool(answer.prompt_tokens):
        return "usage was requested but is missing" if asked else "usage that was not requested"
    if not answer.finish:
        return "no finish_reason"
    limit = answer.item.max_tokens
    if limit is not None and answer.completion_tokens > limit * answer.item.sequences:
        return f"{answer.completion_tokens} completion tokens, max_tokens {limit}"
    return ""


def altered(answer: ClientAnswer, recordings: Sequence[Recording]) -> str:
    """Return what differs between the pool's side and the client's; "" if nothing does.

    A request that the service extended to ask for usage, and an answer whose usage Envoy removed
    again, count as unchanged.
    """
    if not recordings or lost(answer, recordings):
        return ""
    # One recording per attempt: after a retry the client has the last one's answer.
    last = recordings[-1]
    extended = last.request_hash == answer.hash_with_usage_asked
    expected = answer.hash_with_usage_asked if extended else answer.request_hash
    if any(recording.request_hash != expected for recording in recordings):
        return "the pool received another request body"
    if last.status != answer.status:
        return f"the pool answered {last.status}, the client received {answer.status}"
    if extended:
        same = last.hash_less_usage == answer.hash_less_usage
    else:
        same = last.response_hash == answer.response_hash
    return "" if same else "the client received another body"
