"""Records of demo runs, as values."""

from extproc.local.client import ClientAnswer, Ending
from extproc.local.fleet import StackPool
from extproc.local.record import DemoRecord
from extproc.local.recorder import Recording
from extproc.local.traffic import Item, TrafficApi

POOLS = (
    StackPool("short", "http://s", "m", 2048, simulated=True),
    StackPool("long", "http://l", "m", 16_384, simulated=True),
)
RECORDING = Recording("r0", "short", 200, "asked", "answered", 8, complete=True)


def make_item(number: int = 0, max_tokens: int | None = 100, prompts: int = 1, n: int = 1) -> Item:
    return Item(
        request_id=f"r{number}",
        kind="english",
        api=TrafficApi.CHAT,
        body=b"{}",
        text_bytes=4000,
        max_tokens=max_tokens,
        stream=True,
        include_usage=True,
        arrival_s=0.0,
        prompts=prompts,
        n=n,
    )


def make_answer(
    number: int = 0,
    max_tokens: int | None = 100,
    prompts: int = 1,
    n: int = 1,
    completion_tokens: int = 11,
    **fields: object,
) -> ClientAnswer:
    """Return an answer of the short pool: 1,000 prompt tokens, 11 completion tokens."""
    told = {
        "ending": Ending.COMPLETE,
        "status": 200,
        "request_hash": "asked",
        "response_hash": "answered",
        "pool": "short",
        "reason": "fits",
        "category": "prose/m",
        "prompt_tokens": 1000,
        "completion_tokens": completion_tokens,
        "longest_tokens": completion_tokens,
        "finish": "stop",
        "started_s": 0.5,
        "ended_s": 1.5,
    }
    return ClientAnswer(item=make_item(number, max_tokens, prompts, n), **(told | fields))


def make_record(*answers: ClientAnswer, **fields: object) -> DemoRecord:
    """Return the record of a run in which every request reached the short pool."""
    told = {
        "pools": POOLS,
        "recordings": {answer.item.request_id: [RECORDING] for answer in answers},
        "rows": {},
        "learnt": {},
        "prompt_tokens": {},
        "text_tokens": {},
        "preemptions": {},
        "elapsed_s": 1.0,
    }
    return DemoRecord(answers=answers, **(told | fields))
