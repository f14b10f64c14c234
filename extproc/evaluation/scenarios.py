"""The scenarios of `dualpool evaluate --scenarios`: conditions that real traffic has."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from msgspec import structs

from extproc.config.settings import PoolSettings, Settings
from extproc.evaluation.cases import Case
from extproc.evaluation.conditions import (
    Phase,
    Traffic,
    draw_short,
    rendered,
    with_documents,
    with_fields,
    with_images,
    with_inline_thinking,
    with_outputs,
    with_past_reasoning,
    with_schema,
)
from extproc.evaluation.images import gemma_3, llava_1_5, llava_next, qwen_2_vl
from extproc.evaluation.options import LONG
from extproc.evaluation.talks import CONVERSATIONS, INSTRUCTIONS

REQUESTS: Final = 12_000
_LIMIT: Final = 2048
_MAX_PIXELS: Final = 1280 * 28 * 28
THINKING: Final = with_outputs(500, 30_000)
"""Draws the lengths of a request that thinks."""
THINKING_SHARE: Final = 0.2
_RARE: Final = with_outputs(2000, 30_000)
_WESTERN: Final = ("english", "code", "json", "c", "csv", "logs")
_OTHER_SCRIPTS: Final = ("chinese", "japanese", "russian", "arabic")


@dataclass(frozen=True, slots=True)
class Adapters:
    """Fine-tuned variants of a model that share its tokenizer, each under a name of its own."""

    count: int
    zipf: bool = False

    def rename(self, rng: random.Random, case: Case) -> Case:
        """Return the case as a request for one of them."""
        numbers = range(self.count)
        weights = [1 / (number + 1) if self.zipf else 1.0 for number in numbers]
        name = f"{case.asked.model}-adapter-{rng.choices(numbers, weights)[0]}"
        return replace(case, asked=structs.replace(case.asked, model=name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Traffic, and the fleet that serves it.

    phases: one after the other, with the same number of requests. windows: max_model_len of the
    smaller pools. thresholds: of the smaller pools; none: the windows. settings: those that differ,
    by section. adapters: the names of models. renders: whether it needs a chat template beside the
    tokenizer.json. counts: whether the service has the tokenizer and counts short prompts. lag:
    requests until an answer is learnt. apart: the first requests, which are
    reported on their own. primed: whether servers have counted samples for the service first.
    """

    name: str
    phases: tuple[Phase, ...]
    windows: tuple[int, ...] = (_LIMIT,)
    thresholds: tuple[int, ...] = ()
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    requests: int = REQUESTS
    adapters: Adapters | None = None
    renders: bool = False
    counts: bool = False
    lag: int = 0
    apart: int = 0
    primed: bool = False

    def over(self, settings: Settings) -> Settings:
        """Return the settings with the scenario's own pools and overrides.

        Raises ValueError if an override is not valid.
        """
        limits = self.thresholds or self.windows
        pools = [
            PoolSettings(name=f"p{window}", max_model_len=window, threshold=limit)
            for window, limit in zip(self.windows, limits, strict=True)
        ]
        pools.append(PoolSettings(name="largest", max_model_len=LONG))
        changed = {
            name: type(section).model_validate({**section.model_dump(), **self.settings[name]})
            for name in self.settings
            for section in [getattr(settings, name)]
        }
        return settings.model_copy(update={"pools": tuple(pools), **changed})

    def named(self, cases: Sequence[Case], seed: str) -> Iterator[Case]:
        """Yield the cases under the names of its adapters."""
        rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        for case in cases:
            yield self.adapters.rename(rng, case) if self.adapters else case


def select(text: str) -> tuple[Scenario, ...]:
    """Return the scenarios whose name contains the text."""
    return tuple(scenario for scenario in SCENARIOS if text in scenario.name)


_BASE: Final = ((Traffic(),),)
_STREAMED: Final = (with_fields(stream=True),)
_SWITCH: Final = "chat_template_kwargs"


def _sampled(stated: float) -> tuple[Phase, ...]:
    streams = Traffic(share=0.8, stated=stated, changes=_STREAMED)
    return ((streams, Traffic(share=0.2, stated=stated, draw=draw_short)),)


def _limited(limit: int) -> tuple[Phase, ...]:
    return ((Traffic(stated=0.0, changes=(with_fields(max_tokens=limit),)),),)


def _thinking(on: Mapping[str, object], off: Mapping[str, object]) -> tuple[Phase, ...]:
    thinking = Traffic(stated=0.0, draw=THINKING, changes=(with_fields(**on),))
    usual = Traffic(stated=0.0, changes=(with_fields(**off),))
    return (_some(THINKING_SHARE, thinking, base=usual),)


def _rare(stated: float) -> tuple[Phase, ...]:
    return (_some(0.01, Traffic(stated=stated, draw=_RARE), base=Traffic(stated=stated)),)


def _some(share: float, other: Traffic, base: Traffic = _BASE[0][0]) -> Phase:
    return replace(base, share=1 - share), replace(other, share=share)


_IMAGES: Final = {
    "Gemma 3": with_images(gemma_3),
    "LLaVA 1.5": with_images(llava_1_5),
    "LLaVA-NeXT": with_images(llava_next),
    "Qwen2-VL": with_images(qwen_2_vl(_MAX_PIXELS)),
    "Qwen2-VL, by URL": with_images(qwen_2_vl(_MAX_PIXELS), by_url=True),
}
_SCHEMAS: Final = Traffic(changes=(with_schema,))
_TWO_MODELS: Final = ((Traffic(name="first"), Traffic(name="second", model=1)),)
_THOUGHTFUL: Final = Traffic(changes=(with_past_reasoning, rendered))
_RENDERED: Final = ((Traffic(changes=(rendered,)),),)
_THOUGHTS_RENDERED: Final = _some(0.4, _THOUGHTFUL, _RENDERED[0][0])
_FOUR: Final = (2048, 8192, 32_768)
_SIX: Final = (2048, 4096, 8192, 16_384, 32_768)

SCENARIOS: Final = (
    *(Scenario(name=f"base at {limit}", phases=_BASE, windows=(limit,))
      for limit in (2048, 8192, 32_768)),
    *(Scenario(name=f"base at 2048, {most >> 10} KiB counted", phases=_BASE, counts=True,
               settings={"budget": {"count_bytes": most}})
      for most in (1 << 12, 1 << 14)),
    Scenario(name="sampled streams", phases=_sampled(0.85), requests=20_000),
    Scenario(name="sampled streams, 30 % stated", phases=_sampled(0.3), requests=20_000),
    *(Scenario(name=f"all state {limit}, at 8192{name}", phases=phases, windows=(8192,),
               settings={"budget": {"stated_limits": policy}})
      for limit in (8192, 32_000)
      for phases in [_limited(limit)]
      for name, policy in (("", "reserve"), (", hint", "hint"))),
    Scenario(name="4 pools", phases=_BASE, windows=_FOUR),
    Scenario(name="6 pools", phases=_BASE, windows=_SIX),
    *(Scenario(name=f"{count} adapters, {'Zipf' if zipf else 'uniform'}", phases=_BASE,
               adapters=Adapters(count, zipf))
      for count in (20, 60, 200) for zipf in (True, False)),
    *(Scenario(name=f"200 adapters, {'Zipf' if zipf else 'uniform'}, primed", phases=_BASE,
               adapters=Adapters(200, zipf), primed=True)
      for zipf in (True, False)),
    Scenario(name="2 models, 30 adapters each", phases=_TWO_MODELS, adapters=Adapters(30)),
    *(Scenario(name=f"images: {name}", phases=(_some(0.3, Traffic(changes=(change,))),))
      for name, change in _IMAGES.items()),
    *(Scenario(name=f"images: {name}, at 8192", windows=(8192,),
               phases=(_some(0.3, Traffic(changes=(change,))),))
      for name, change in (("LLaVA-NeXT", with_images(llava_next)),
                           *((f"Qwen2-VL, {patches} patches",
                              with_images(qwen_2_vl(patches * 28 * 28)))
                             for patches in (512, 4096, 16_384)))),
    *(Scenario(name=f"history: {name}", phases=(_some(0.4, Traffic(changes=(change,))),))
      for name, change in (("reasoning", with_past_reasoning), ("<think>", with_inline_thinking))),
    Scenario(
        name="thinking: enable_thinking",
        phases=_thinking({_SWITCH: {"enable_thinking": True}},
                         {_SWITCH: {"enable_thinking": False}}),
    ),
    Scenario(
        name="thinking: reasoning_effort",
        phases=_thinking({"reasoning_effort": "high"}, {"reasoning_effort": "none"}),
    ),
    Scenario(name="thinking: not in the body", phases=_thinking({}, {})),
    *(Scenario(name=f"answers: {name}", phases=_thinking({}, {name: value}))
      for name, value in (("response_format", {"type": "json_object"}), ("stop", ["\n\n"]))),
    Scenario(name="threshold 4096, window 8192", phases=_BASE, windows=(8192,),
             thresholds=(4096,)),
    *(Scenario(name=f"long outputs, {stated:.0%} stated, {share:.2%}", phases=phases,
               settings={"budget": {"target": share}})
      for stated in (0.85, 0.0)
      for phases in [_rare(stated)]
      for share in (0.0005, 0.002)),
    Scenario(name="answers 2000 late", phases=_BASE, lag=2000, apart=2000),
    Scenario(name="answers 2000 late, primed", phases=_BASE, lag=2000, apart=2000, primed=True),
    Scenario(name="schemas: 70 %", phases=(_some(0.7, _SCHEMAS),)),
    Scenario(name="schemas: 10 %, then 70 %", phases=(_some(0.1, _SCHEMAS), _some(0.7, _SCHEMAS))),
    *(Scenario(name=f"documents: 30 %, {'rendered' if rendered else 'dropped'}",
               phases=(_some(0.3, Traffic(changes=(with_documents(rendered=rendered),))),))
      for rendered in (True, False)),
    *(Scenario(name=f"chat template{name}", phases=phases, requests=4000, renders=True)
      for name, phases in (("", _RENDERED), (", reasoning", (_THOUGHTS_RENDERED,)))),
    Scenario(name="chat template, 16 KiB counted", phases=_RENDERED, requests=4000, renders=True,
             counts=True),
    *(Scenario(name=f"{name}{kept}", phases=((Traffic(talks=shape),),), windows=(window,),
               settings={"budget": {"prefixes": prefixes}})
      for name, shape, window in (("conversations", CONVERSATIONS, _LIMIT),
                                  ("conversations at 8192", CONVERSATIONS, 8192),
                                  ("shared instructions", INSTRUCTIONS, _LIMIT))
      for kept, prefixes in (("", 0), (", remembered", 16_384))),
    Scenario(name="drift: other tokenizer", phases=((Traffic(),), (Traffic(model=1),))),
    Scenario(name="drift: other languages",
             phases=((Traffic(kinds=_WESTERN),), (Traffic(kinds=_OTHER_SCRIPTS),))),
)  # fmt: skip
"""Those that only differ in their fleet share their requests, if these are the same object."""
