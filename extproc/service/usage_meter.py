"""What answers used, as OpenTelemetry's GenAI metrics, sent to an OTLP receiver by a thread.

Names and attributes are those of the GenAI conventions 0.1.0. Their distributions and durations are
left out: this service sees neither every answer nor how long one takes.

Invariant: a receiver that is slow or absent delays no request, and gets whole sums once it is back.
The pools, the models and the operations that are told apart are bounded.
"""

import uuid
from collections.abc import Iterator
from functools import partial
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from extproc import __version__
from extproc.budget.category import OTHER_MODELS, label
from extproc.request.reader import Endpoint
from extproc.response.reader import Usage
from extproc.routing.pools import Pool
from extproc.stream.decision import Noted

_EVERY_MS: Final = 15_000
_EXPORT_TIMEOUT_S: Final = 2
_PREFIX: Final = "gen_ai.client.inference.usage"
_ESTIMATED: Final = "that answers state; those that are observed stand for all"

# Where the conventions have no name, that of the API.
_OPERATIONS: Final = {
    Endpoint.CHAT: "chat",
    Endpoint.OTHER_CHAT: "chat",
    Endpoint.RESPONSES: "chat",
    Endpoint.MESSAGES: "chat",
    Endpoint.COMPLETION: "text_completion",
    Endpoint.GENERATE: "text_completion",
    Endpoint.EMBEDDING: "embeddings",
}


def receiver_of(url: str) -> MetricReader:
    """Return what sends metrics to an OTLP receiver from time to time."""
    exporter = OTLPMetricExporter(f"{url}/v1/metrics", timeout=_EXPORT_TIMEOUT_S)
    return PeriodicExportingMetricReader(exporter, export_interval_millis=_EVERY_MS)


class UsageMeter:
    """Adds up the tokens of the answers that a process observes."""

    def __init__(self, reader: MetricReader, models: int) -> None:
        """`models`: how many are told apart."""
        # Each worker counts by itself, from 0 after a restart.
        resource = Resource(
            {
                "service.name": "dualpool",
                "service.version": __version__,
                "service.instance.id": str(uuid.uuid4()),
            }
        )
        # At the end of the process it sends what is left.
        meter = MeterProvider([reader], resource).get_meter("dualpool", __version__)
        for place, (kind, text) in enumerate((("input", "Prompt"), ("output", "Completion"))):
            meter.create_observable_counter(
                f"{_PREFIX}.{kind}_tokens",
                [partial(self._sums, place)],
                "{token}",
                f"{text} tokens {_ESTIMATED}.",
            )
        self._models: set[str] = set()
        self._most_models = models
        self._tokens: dict[tuple[str, str, str], tuple[int, int]] = {}

    def count(self, noted: Noted, pool: Pool, usage: Usage) -> None:
        """Count an answer of `pool` as those that it stands for."""
        operation = _OPERATIONS.get(noted.api, noted.api.value)
        key = operation, self._known(noted.asked.model), pool.name
        prompt, completion = self._tokens.get(key, (0, 0))
        self._tokens[key] = (
            prompt + usage.prompt_tokens * noted.stands_for,
            completion + usage.completion_tokens * noted.stands_for,
        )

    def _known(self, model: str) -> str:
        name = label(model)
        if name not in self._models:
            if len(self._models) >= self._most_models:
                return OTHER_MODELS
            self._models.add(name)
        return name

    def _sums(self, place: int, _: CallbackOptions) -> Iterator[Observation]:
        for (operation, model, pool), tokens in list(self._tokens.items()):
            attributes = {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "vllm",
                "gen_ai.request.model": model,
                # vLLM does not state what of the tokens is text.
                "gen_ai.token.modality": "unknown",
                "dualpool.pool": pool,
            }
            yield Observation(tokens[place], attributes)
