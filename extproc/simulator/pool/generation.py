"""Generates the answer to one request in a simulated pool, whole or as a stream of events."""

import asyncio
from collections.abc import AsyncIterator

from extproc.simulator.engine import Sequence
from extproc.simulator.pool.answer import AnswerForm, AnswerUsage, Piece
from extproc.simulator.pool.pace import Ticket
from extproc.simulator.pool.request import Generation
from extproc.simulator.pool.words import GeneratedText


class GenerationRun:
    """The sequences of one request, by index; the caller admits `tickets` to the engine."""

    def __init__(self, generation: Generation, seed: int) -> None:
        self._changed = asyncio.Event()
        self._generation = generation
        self._prompts = [p for p in generation.prompts for _ in range(generation.sequences)]
        self._answers = [
            GeneratedText(
                b"%d %d %s" % (seed, index, generation.digest),
                prompt.max_tokens,
                at_least=generation.min_tokens,
                ignore_eos=generation.ignore_eos,
            )
            for index, prompt in enumerate(self._prompts)
        ]
        self.tickets = [
            Ticket(Sequence(prompt.tokens, answer.tokens), answer.finish, self._changed)
            for prompt, answer in zip(self._prompts, self._answers, strict=True)
        ]
        self._sent = [0] * len(self.tickets)  # tokens by index

    async def whole(self, form: AnswerForm) -> bytes:
        """Wait for all sequences; return the body of the answer."""
        texts = ["" for _ in self.tickets]
        async for piece in self._pieces():
            texts[piece.index] += piece.text
        pieces = [
            Piece(index, text, answer.finish)
            for index, (text, answer) in enumerate(zip(texts, self._answers, strict=True))
        ]
        return form.whole(pieces, self._total())

    async def events(self, form: AnswerForm) -> AsyncIterator[bytes]:
        """Yield the events of the stream as their tokens are generated."""
        yield form.begin()
        opened = False
        async for piece in self._pieces():
            if not opened:
                opened = True
                for index in range(len(self.tickets)):
                    yield form.opening(index, self._usage(index, 0))
            yield form.piece(piece, self._usage(piece.index, self._sent[piece.index]))
        yield form.close(self._total())

    async def _pieces(self) -> AsyncIterator[Piece]:
        """Yield new text until all sequences are complete; the tickets must be admitted."""
        while not all(map(self._is_sent, range(len(self.tickets)))):
            await self._changed.wait()
            # Tokens that came while the client was slow form one piece, as in vLLM.
            self._changed.clear()
            for index, ticket in enumerate(self.tickets):
                if ticket.tokens > self._sent[index]:
                    yield self._next_piece(index, ticket.tokens)

    def _usage(self, index: int, sent: int) -> AnswerUsage | None:
        if self._generation.continuous_usage:
            return AnswerUsage(self._prompts[index].tokens, sent)
        return None

    def _total(self) -> AnswerUsage:
        prompts = self._generation.prompts
        return AnswerUsage(sum(prompt.tokens for prompt in prompts), sum(self._sent))

    def _is_sent(self, index: int) -> bool:
        return self._sent[index] == self._answers[index].tokens

    def _next_piece(self, index: int, tokens: int) -> Piece:
        answer = self._answers[index]
        text = answer.take(tokens - self._sent[index])
        echo = None if self._sent[index] else self._prompts[index].echo
        self._sent[index] = tokens
        finish = answer.finish if self._is_sent(index) else None
        if echo is None:
            return Piece(index, text, finish)
        return Piece(index, echo.text + ("" if echo.alone else text), finish, echo.ids)
