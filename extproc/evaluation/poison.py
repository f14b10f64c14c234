"""Attack what is learnt, and measure the next thousand estimates.

An attack changes or adds to what a thousand answers teach. The same thousand requests are then
estimated by an estimator that was attacked and by one that was not.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from msgspec import structs

from extproc.budget.values import Observation, Outcome
from extproc.evaluation.cases import Case, Draft, Reader, Template
from extproc.evaluation.replay import LONG_POOL, Lessons, answer, replay
from extproc.evaluation.rivals import Rival
from extproc.evaluation.scores import Score, score_rows
from extproc.evaluation.tokenizer import TextTokenizer

REQUESTS: Final = 4000
"""Half of them teach the truth, a quarter is attacked, a quarter is estimated."""

# Their tokens per character are far from those of any language: true usage that misleads.
_ODD: Final = (
    "a" * 20_000, " " * 30_000, "\n" * 20_000, "0" * 9000, "\u00e9" * 8000, "\U0001f600" * 3000,
    "=-" * 5000, "aB" * 6000, "\x01" * 5000, "\u0e01" * 4000, "x " * 9000, " a1" * 4000,
)  # fmt: skip
# Almost all of their tokens are the template's: "hi", 2 bytes, has some 30 prompt tokens, which a
# rule of bytes over tokens learns as .07 bytes per token.
_TINY: Final = (
    "", "a", "?!", "\u00df\u2202\u0192\u2206", "xqzKp7vW9jQ", "\U0001f600\U0001f9ff", "0x7f3c9a1e",
    "\u1e9e\u0489\u20dd", "aaaaaaaaaaaaaaaaaaaaaaaa",
)  # fmt: skip
_ODD_ANSWER: Final = 50
_LONG_OUTPUT: Final = (3000, 9000)
_ODD_TENANT: Final = "odd"

Change = Callable[[Observation, random.Random], Observation]
Attack = Callable[[Case, Observation, random.Random], Lessons]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """The effect of an attack on an estimator."""

    attack: str
    estimator: str
    before: Score
    after: Score


def _lies(share: float, change: Change) -> Attack:
    """Change a share of the answers."""

    def attack(case: Case, seen: Observation, rng: random.Random) -> Lessons:
        return ((case, change(seen, rng) if rng.random() < share else seen),)

    return attack


def _times(factor: float) -> Change:
    return lambda seen, _: structs.replace(seen, prompt_tokens=int(seen.prompt_tokens * factor))


def _says(tokens: int) -> Change:
    return lambda seen, _: structs.replace(seen, prompt_tokens=tokens)


def _anything(seen: Observation, rng: random.Random) -> Observation:
    return structs.replace(seen, prompt_tokens=rng.randint(1, 200_000))


def _cut_at_once(seen: Observation, rng: random.Random) -> Observation:  # noqa: ARG001
    return structs.replace(seen, outcome=Outcome.CUT, completion_tokens=1)


def _adds(share: float, cases: Sequence[Case], times: int = 1) -> Attack:
    """After each answer, with probability `share`, add `times` requests with true answers."""

    def attack(case: Case, seen: Observation, rng: random.Random) -> Lessons:
        yield case, seen
        for added in rng.choices(cases, k=times) if rng.random() < share else ():
            tokens, output = added.prompt_tokens, added.completion_tokens
            yield added, Observation(added.asked, Outcome.COMPLETE, seen.window, tokens, output)

    return attack


def _beside(change: Callable[[Case, random.Random], Case]) -> Attack:
    """After each answer, add one of another tenant: the same case, changed, answered truthfully."""

    def attack(case: Case, seen: Observation, rng: random.Random) -> Lessons:
        yield case, seen
        odd = change(keyed(case, _ODD_TENANT) if case.asked.tenant else case, rng)
        yield odd, answer(odd, LONG_POOL)

    return attack


def _unlimited(case: Case, rng: random.Random) -> Case:
    asked = structs.replace(case.asked, output_limit=None)
    return replace(case, asked=asked, completion_tokens=rng.randint(*_LONG_OUTPUT))


def _half_dropped(case: Case, rng: random.Random) -> Case:  # noqa: ARG001
    prompt, whole = case.prompt_tokens // 2 + 1, case.whole_tokens // 2 + 1
    return replace(case, prompt_tokens=prompt, whole_tokens=whole)


def keyed(case: Case, tenant: str) -> Case:
    """Return the case as a request of a tenant."""
    return replace(case, asked=structs.replace(case.asked, tenant=tenant))


TENANT_ATTACKS: Final[Mapping[str, Attack]] = {
    "a tenant with long outputs": _beside(_unlimited),
    "a tenant with dropped text": _beside(_half_dropped),
}
"""One more request for each, of a tenant of the same model whose true answers are odd: long
outputs without a limit, and text of which the template drops half."""


def _as_category(name: str) -> Attack:
    """Teach another category of the same model four times the tokens."""

    def attack(case: Case, seen: Observation, rng: random.Random) -> Lessons:
        yield case, seen
        if rng.random() < 0.01:
            other = structs.replace(seen.asked, category=name)
            yield case, structs.replace(seen, asked=other, prompt_tokens=4 * seen.prompt_tokens)

    return attack


def make_attacks(tokenizer: TextTokenizer, template: Template) -> Mapping[str, Attack]:
    """Return the attacks by name; `template` is the chat template of the honest cases."""
    reader = Reader(tokenizer.name)
    short = [_case(reader, tokenizer, template, "hi", 8)]
    tiny = [_case(reader, tokenizer, template, text, 8) for text in _TINY]
    odd = [_case(reader, tokenizer, template, text, _ODD_ANSWER) for text in _ODD]
    return {
        "1,000 times 'hi'": _adds(1.0, short),
        "10,000 tiny odd texts": _adds(1.0, tiny, times=10),
        "1 % report 10 times the tokens": _lies(0.01, _times(10)),
        "1 % report a tenth": _lies(0.01, _times(0.1)),
        "1 % report twice the tokens": _lies(0.01, _times(2)),
        "1 % report half": _lies(0.01, _times(0.5)),
        "1 % report 0": _lies(0.01, _says(0)),
        "1 % report -1": _lies(0.01, _says(-1)),
        "1 % report 2^40": _lies(0.01, _says(1 << 40)),
        "1 % report any number": _lies(0.01, _anything),
        "10 % leave out cached tokens": _lies(0.10, _times(0.2)),
        "10 % are cut after one token": _lies(0.10, _cut_at_once),
        "5 % odd texts, true usage": _adds(0.05, odd),
        "10 % odd texts, true usage": _adds(0.10, odd),
        "1 % lie under a new category": _as_category("new"),
        "1 % by a model of 1.4 times the tokens": _lies(0.01, _times(1.4)),
        "10 % by a model of 1.4 times the tokens": _lies(0.10, _times(1.4)),
        "all by a model of twice the tokens": _lies(1.0, _times(2)),
        **TENANT_ATTACKS,
    }


def _case(
    reader: Reader, tokenizer: TextTokenizer, template: Template, text: str, answer: int
) -> Case:
    body: dict[str, object] = {"messages": [{"role": "user", "content": text}], "max_tokens": 256}
    tokens = tokenizer.count(text) + template.tokens(1, 0)
    return reader.read(Draft("attack", body, tokens, answer), ascii_only=True)


def strike(
    cases: Sequence[Case], rival: Rival, attack: Attack | None, threshold: int, seed: int
) -> Score:
    """Teach the truth, then the attack (None: the truth), and score the last quarter."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
    # The attack hits an estimator that is calibrated, and the last quarter is the same in all runs.
    half, last = len(cases) // 2, len(cases) * 3 // 4
    replay(cases[:half], rival, threshold)
    if attack is None:
        replay(cases[half:last], rival, threshold)
    else:
        replay(cases[half:last], rival, threshold, lambda case, seen: attack(case, seen, rng))
    rows = replay(cases[last:], rival, threshold)
    # None of them counts as early: all categories have learnt from the requests before.
    return score_rows([replace(row, seen=row.seen + half) for row in rows])
