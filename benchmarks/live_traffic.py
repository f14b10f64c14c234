"""The traffic of benchmarks.live_vllm, and the settings under which it is served."""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from extproc.evaluation.cases import TEMPLATES, Draft
from extproc.evaluation.conditions import (
    Change,
    Model,
    with_fields,
    with_inline_thinking,
    with_past_reasoning,
    with_schema,
)
from extproc.evaluation.lengths import DrawnLength
from extproc.evaluation.texts import read_texts
from extproc.evaluation.tokenizer import load_tokenizers

_STREAMED: Final = 0.8  # without usage; of the others half are streams with it
_NEAR: Final = 0.5  # the share of prompts near the smaller window, of which
_NEAR_WINDOW: Final = 0.6, 1.3  # times are drawn
_ANY_WINDOW: Final = 0.05, 3.0
_SCHEMAS: Final = 6
"""Different ones: vLLM compiles each once, which takes a second of CPU."""
_STOP: Final = "x"
"""A tiny random model says a word with it after some thirty tokens."""


@dataclass(frozen=True, slots=True)
class Run:
    """One part of the benchmark; max_tokens: that all requests state, as a share of the window."""

    name: str
    max_tokens: float
    settings: Mapping[str, object]

    @property
    def is_hint(self) -> bool:
        """Whether the output counts that a request has, not the limit that it states."""
        budget = self.settings.get("budget")
        return isinstance(budget, dict) and budget.get("stated_limits") == "hint"


RUNS: Final = (
    Run("default", 1 / 32, {}),
    # So many that the counted ones can be compared with the true ones.
    Run("target 5 %", 1 / 32, {"budget": {"target": 0.05}}),
    Run("hint, 5 %", 3 / 4, {"budget": {"target": 0.05, "stated_limits": "hint"}}),
)


def bodies(name: str, run: Run, short: int, seed: int) -> Iterator[dict[str, object]]:
    """Yield requests to a model without end; `short`: the smaller window, in tokens."""
    rng = random.Random(seed)  # noqa: S311 - traffic, not a secret
    model = Model(load_tokenizers(())[0](), TEMPLATES[0], read_texts(None, seed))
    writer, limit = model.writer(stated=0.0), int(run.max_tokens * short)
    while True:
        room = short if run.is_hint else short - limit
        draft = writer.write(rng, DrawnLength(_draw_prompt(rng, room), 1))
        for change in _changes(rng):
            draft = change(rng, draft, model)
        fields = {"max_tokens": limit, "stop": [_STOP], "return_token_ids": True}
        yield {"model": name, **draft.body, **fields}


def _draw_prompt(rng: random.Random, room: int) -> int:
    if rng.random() < _NEAR:
        return int(room * rng.uniform(*_NEAR_WINDOW))
    return int(room * math.exp(rng.uniform(*map(math.log, _ANY_WINDOW))))


def _changes(rng: random.Random) -> Iterator[Change]:
    """Yield what a request has beside its conversation and its tools."""
    drawn = rng.random()
    if drawn < _STREAMED:
        yield with_fields(stream=True)
    elif drawn < _STREAMED + (1 - _STREAMED) / 2:
        yield with_fields(stream=True, stream_options={"include_usage": True})
    if rng.random() < 0.3:
        yield with_past_reasoning if rng.random() < 0.5 else with_inline_thinking
    if rng.random() < 0.5:
        yield with_fields(chat_template_kwargs={"enable_thinking": rng.random() < 0.5})
    if rng.random() < 0.15:
        yield partial(_with_one_schema, rng.randrange(_SCHEMAS))


def _with_one_schema(number: int, _: random.Random, draft: Draft, model: Model) -> Draft:
    return with_schema(random.Random(number), draft, model)  # noqa: S311 - traffic, not a secret
