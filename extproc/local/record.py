"""Everything that was observed of one demo run, from which the report is computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extproc.local.client import ClientAnswer
from extproc.local.envoy import AccessLogRow
from extproc.local.fleet import StackPool
from extproc.local.inquiry import LearntRatio
from extproc.local.recorder import Recording
from extproc.local.replicas import Replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRecord:
    """One run; mappings are by request id, `learnt` by category, `preemptions` by pool.

    prompt_tokens: tokens of a request's largest prompt, counted by /tokenize for the requests
    whose usage does not give them. text_tokens: tokens without the chat template, of a sample.
    recorded: whether the pools' side was recorded; if not, `recordings` and `rows` are empty.
    replicas: None if they share nothing.
    """

    pools: tuple[StackPool, ...]
    answers: tuple[ClientAnswer, ...]
    recordings: Mapping[str, Sequence[Recording]]
    rows: Mapping[str, AccessLogRow]
    learnt: Mapping[str, LearntRatio]
    prompt_tokens: Mapping[str, int]
    text_tokens: Mapping[str, int]
    preemptions: Mapping[str, int]
    elapsed_s: float
    recorded: bool = True
    replicas: Replicas | None = None

    def all_prompt_tokens(self, answer: ClientAnswer) -> int:
        """Return the tokens of all prompts of a request; 0 if unknown."""
        # Of a batch only the largest prompt was counted, so without usage the sum stays unknown.
        return answer.prompt_tokens or (self._counted(answer) if answer.item.prompts == 1 else 0)

    def largest_prompt_tokens(self, answer: ClientAnswer) -> int:
        """Return the tokens of the largest prompt of a request; 0 if unknown."""
        counted = self._counted(answer)
        return counted if answer.item.prompts > 1 else answer.prompt_tokens or counted

    def by_pool(self) -> dict[str, list[ClientAnswer]]:
        """Group the answers by pool: the one in Envoy's access log, else in the header."""
        grouped: dict[str, list[ClientAnswer]] = {pool.name: [] for pool in self.pools}
        for answer in self.answers:
            row = self.rows.get(answer.item.request_id)
            name = row.pool if row and row.pool else answer.pool
            grouped.get(name, grouped[self.pools[-1].name]).append(answer)
        return grouped

    def _counted(self, answer: ClientAnswer) -> int:
        return self.prompt_tokens.get(answer.item.request_id, 0)
