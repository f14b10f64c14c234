"""Prime an estimator as the service does: by what servers count of the service's samples."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast

import msgspec

from extproc.budget.values import Estimator
from extproc.evaluation.cases import Template
from extproc.routing.load.discovery import Discovery, Stated
from extproc.routing.load.priming import Priming
from extproc.routing.pools import Pool
from extproc.tokens import MAX_TOKENS

_POOL: Final = "pool"
_SERVER: Final = "server"

_Body = Mapping[str, object]


def prime(
    estimator: Estimator, models: Iterable[str], count: Callable[[str], int], template: Template
) -> None:
    """Have one server count the samples for each model; all have this tokenizer and template."""
    discovery = Discovery()
    pool = Pool(_POOL, MAX_TOKENS, MAX_TOKENS)
    discovery.set_servers(_POOL, [_SERVER])
    discovery.tell(_POOL, _SERVER, Stated(models=frozenset(models)))
    priming = Priming(discovery, lambda _: (pool,), estimator.knows, estimator.observe)
    while body := priming.next(_POOL, _SERVER):
        tokens = _count(msgspec.json.decode(body), count, template)
        priming.take(_POOL, _SERVER, msgspec.json.encode({"count": tokens}))


def _count(body: _Body, count: Callable[[str], int], template: Template) -> int:
    messages = cast("list[dict[str, str]]", body["messages"])
    tools = cast("list[_Body]", body.get("tools", []))
    # As requests.Writer counts them: tools as the template renders them, as JSON.
    texts = [*(each["content"] for each in messages), *map(json.dumps, tools)]
    return sum(map(count, texts)) + template.tokens(len(messages), len(tools))
