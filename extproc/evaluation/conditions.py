"""Traffic of named conditions: how requests differ from plain ones, and what they truly cost.

Invariant: a change of a body changes its true tokens by what the model's own rule says, whatever
the estimators make of it.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from extproc.evaluation.cases import Case, Draft, Reader, Template
from extproc.evaluation.chat_template import ChatTemplate, RefusedByTemplate
from extproc.evaluation.images import ImageTokens, draw_size, image_url
from extproc.evaluation.lengths import Draw, DrawnLength, draw_azure
from extproc.evaluation.requests import Writer
from extproc.evaluation.talks import Talks, TalkShape
from extproc.evaluation.texts import Text
from extproc.evaluation.tokenizer import TextTokenizer, tokenize
from extproc.planner.traffic.texts import STATED

_SHORT_TOTAL: Final = 20, 600
_THOUGHT: Final = 100, 4000  # tokens of one earlier turn's reasoning
_DOCUMENTS: Final = 1, 6
_DOCUMENT: Final = 100, 2000
_DOCUMENT_TOKENS: Final = 8  # that a template adds around each document
_FIELDS: Final = 4, 120  # of a response schema
_IMAGES: Final = 1, 4
_GREETING: Final = "Good morning."

Message = dict[str, object]


class Model:
    """A model that serves requests: its tokenizer, its chat template, and texts to write from.

    `count` keeps what it has counted, for texts that come again; `count_once` does not.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: Template,
        texts: Sequence[Text],
        chat_template: ChatTemplate | None = None,
    ) -> None:
        """Take the tokens that a template adds, and a template that can be rendered, if any."""
        self.name = tokenizer.name
        self.template = template
        self.chat_template = chat_template
        self.count_once = tokenizer.count
        self.count = lru_cache(4096)(tokenizer.count)
        self._tokenizer = tokenizer
        self._texts = tokenize(tokenizer, texts)
        self._writers: dict[tuple[float, tuple[str, ...]], Writer] = {}

    def writer(self, stated: float = STATED, kinds: tuple[str, ...] = ()) -> Writer:
        """Return a writer of requests from texts of these classes; all if none are named."""
        key = stated, kinds
        if key not in self._writers:
            # Texts of the user's own may have none of the built-in classes.
            texts = [text for text in self._texts if text.kind in kinds] or self._texts
            self._writers[key] = Writer(texts, self._tokenizer, self.template, stated=stated)
        return self._writers[key]


Change = Callable[[random.Random, Draft, Model], Draft]
"""Returns the request with one condition more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Requests of one kind.

    share: relative to the other kinds of the same phase. stated: share of them that state an output
    limit. model: the place of the model that serves them. name: of that model, as clients write it.
    kinds: classes of their texts; all if empty. talks: conversations that go on from request to
    request.
    """

    share: float = 1.0
    draw: Draw = draw_azure
    stated: float = STATED
    changes: tuple[Change, ...] = ()
    model: int = 0
    name: str = "model"
    kinds: tuple[str, ...] = ()
    talks: TalkShape | None = None


Phase = tuple[Traffic, ...]
"""Kinds of requests that arrive mixed."""


def make_cases(
    phases: Sequence[Phase], models: Sequence[Model], count: int, seed: str
) -> Iterator[Case]:
    """Write and read `count` requests, the same number in each phase; the seed decides them.

    Leaves out those that the model's chat template refuses.
    """
    rng, reader = random.Random(seed), Reader("")  # noqa: S311 - reproducible, not secret
    talks: dict[tuple[int, TalkShape], Talks] = {}
    for number in range(count):
        phase = phases[number * len(phases) // count]
        traffic = rng.choices(phase, [each.share for each in phase])[0]
        model = models[traffic.model % len(models)]
        try:
            if traffic.talks:
                open_talks = talks.setdefault((traffic.model, traffic.talks), Talks(traffic.talks))
                draft = open_talks.go_on(rng, model.writer(traffic.stated, traffic.kinds))
                draft = draft._replace(body={"model": traffic.name, **draft.body})
            else:
                draft = _draft(rng, traffic, model)
        except RefusedByTemplate:
            continue
        # Half of the clients escape other characters as \uXXXX.
        yield reader.read(draft, ascii_only=rng.random() < 0.5)


def _draft(rng: random.Random, traffic: Traffic, model: Model) -> Draft:
    draft = model.writer(traffic.stated, traffic.kinds).write(rng, traffic.draw(rng))
    for change in traffic.changes:
        draft = change(rng, draft, model)
    return draft._replace(body={"model": traffic.name, **draft.body})


def draw_short(rng: random.Random) -> DrawnLength:
    """Draw the length of a short job."""
    total = _log_uniform(rng, *_SHORT_TOTAL)
    output = max(1, total // 4)
    return DrawnLength(total - output, output)


def with_outputs(least: int, most: int) -> Draw:
    """Return a function that draws prompts as usual, and outputs log-uniformly."""
    return lambda rng: draw_azure(rng)._replace(output=_log_uniform(rng, least, most))


def with_fields(**fields: object) -> Change:
    """Set fields of the body that cost no prompt tokens."""
    return lambda _, draft, __: _with(draft, 0, **fields)


def with_images(tokens: ImageTokens, *, by_url: bool = False) -> Change:
    """Add one to four images, in the body or by an address that does not show their sizes."""

    def change(rng: random.Random, draft: Draft, _: Model) -> Draft:
        sizes = [draw_size(rng) for _ in range(rng.randint(*_IMAGES))]
        urls = ["https://example.org/photo.png" if by_url else image_url(*size) for size in sizes]
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        messages = _messages(draft)
        last = messages[-1]
        content = [*parts, {"type": "text", "text": last["content"]}]
        messages[-1] = {**last, "role": "user", "content": content}
        added = sum(tokens(*size) for size in sizes)
        return _with(draft, added, messages=messages)

    return change


def with_past_reasoning(rng: random.Random, draft: Draft, model: Model) -> Draft:
    """Add reasoning to the earlier turns of the assistant, which the template drops."""

    def join(said: Message, thought: str) -> Message:
        return {**said, "reasoning_content": thought}

    return _with_thoughts(rng, draft, model, join)


def with_inline_thinking(rng: random.Random, draft: Draft, model: Model) -> Draft:
    """Add it within the content, as clients do that send an answer back as it came."""

    def join(said: Message, thought: str) -> Message:
        return {**said, "content": f"<think>\n{thought}\n</think>\n\n{said['content']}"}

    return _with_thoughts(rng, draft, model, join)


def with_schema(rng: random.Random, draft: Draft, _: Model) -> Draft:
    """Add a response schema, which vLLM gives to the grammar alone."""
    names = [f"{word}_{n}" for n in range(_log_uniform(rng, *_FIELDS)) for word in ("field",)]
    described = "The value as the customer wrote it, without units"
    properties = {name: {"type": "string", "description": described} for name in names}
    schema = {"type": "object", "properties": properties, "required": names}
    described_format = {"name": "answer", "schema": schema}
    return _with(draft, 0, response_format={"type": "json_schema", "json_schema": described_format})


def with_documents(*, rendered: bool) -> Change:
    """Add documents, which the template renders or drops."""

    def change(rng: random.Random, draft: Draft, model: Model) -> Draft:
        documents, added = [], 0
        for number in range(rng.randint(*_DOCUMENTS)):
            text, tokens = model.writer().text(rng, _log_uniform(rng, *_DOCUMENT))
            documents.append({"title": f"Document {number}", "text": text})
            added += tokens + model.count(f"Document {number}") + _DOCUMENT_TOKENS
        return _with(draft, added if rendered else 0, documents=documents)

    return change


def rendered(_: random.Random, draft: Draft, model: Model) -> Draft:
    """Count the prompt as the model's own chat template renders it, where it has one.

    Raises RefusedByTemplate.
    """
    if model.chat_template is None:
        return draft
    return draft._replace(prompt_tokens=model.count_once(model.chat_template.render(draft.body)))


def _with_thoughts(
    rng: random.Random, draft: Draft, model: Model, join: Callable[[Message, str], Message]
) -> Draft:
    messages, added = _messages(draft), 0
    # What comes before the user's last turn is past.
    messages[-1] = {**messages[-1], "role": "user"}
    if not any(_is_answer(message) for message in messages):
        said: list[Message] = [
            {"role": role, "content": _GREETING} for role in ("user", "assistant")
        ]
        messages = [*said, *messages]
        added = 2 * (model.template.message + model.count(_GREETING))
    for place, message in enumerate(messages):
        if _is_answer(message):
            thought, _ = model.writer().text(rng, _log_uniform(rng, *_THOUGHT))
            messages[place] = join(message, thought)
    return _with(draft, added, messages=messages)


def _is_answer(message: Message) -> bool:
    return message["role"] == "assistant" and isinstance(message["content"], str)


def _messages(draft: Draft) -> list[Message]:
    return list(cast("list[Message]", draft.body["messages"]))


def _with(draft: Draft, tokens: int, **fields: object) -> Draft:
    body = {**draft.body, **fields}
    return draft._replace(body=body, prompt_tokens=draft.prompt_tokens + tokens)


def _log_uniform(rng: random.Random, least: int, most: int) -> int:
    return int(math.exp(rng.uniform(math.log(least), math.log(most))))
