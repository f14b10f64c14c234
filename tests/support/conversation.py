"""Read whole ext_proc streams from text: Envoy's messages and the expected replies.

A file in tests/data/conversations is a sequence of blocks in protobuf's text format, each below a
line `>>> ` (a message from Envoy) or `<<< ` (a reply to it); the rest of that line is a comment.
"""

from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format
from prometheus_client import CollectorRegistry

from extproc.budget.category import Labels
from extproc.budget.learner import Learner
from extproc.budget.paper import PaperEstimator
from extproc.protos import POOL
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.routing.pools import Pool
from extproc.routing.route import Rules
from extproc.stream.metrics import Metrics
from extproc.stream.sampling import Sampling
from extproc.stream.stages import Stages
from tests.support.paths import DATA

FILES = sorted((DATA / "conversations").glob("*.txt"))


@dataclass
class Turn:
    """One message from Envoy, and the replies to it."""

    message: ProcessingRequest
    replies: list[ProcessingResponse] = field(default_factory=list)


def read(path: Path) -> list[Turn]:
    """Read a conversation."""
    turns: list[Turn] = []
    for block in path.read_text().replace("\n<<<", "\n>>><<<").split(">>>")[1:]:
        _, _, text = block.partition("\n")
        if block.startswith("<<<"):
            turns[-1].replies.append(
                text_format.Parse(text, ProcessingResponse(), descriptor_pool=POOL)
            )
        else:
            turns.append(Turn(text_format.Parse(text, ProcessingRequest(), descriptor_pool=POOL)))
    return turns


def decoded(replies: list[bytes]) -> list[ProcessingResponse]:
    """Return replies as messages."""
    return [ProcessingResponse.FromString(reply) for reply in replies]


def paper(**changes) -> PaperEstimator:
    """Return the paper's estimator with the paper's values."""
    values = {
        "beta": 0.95,
        "gamma": 1.0,
        "prior_bytes_per_token": 4.0,
        "default_output_tokens": 1024,
        "categories": 8,
    }
    return PaperEstimator(**values | changes)


def stages(**changes) -> Stages:
    """Return stages that have learnt nothing: short 8192, long 65536, the paper's estimator."""
    rules = {
        "pools": (Pool("short", 8192, 8192), Pool("long", 65536, 65536)),
        "category_header": "",
        "max_body_bytes": 1 << 20,
        "observe_sample": 0.5,
        "bytes_per_token": 2.5,
    }
    learner = Learner(paper(), Labels(8))
    registry = CollectorRegistry()
    return Stages(
        rules=Rules(**rules | changes),
        learner=learner,
        learn=learner.learn,
        metrics=Metrics(registry),
        clock=lambda: 0.0,
        draw=lambda: 0.4,
        sampling=Sampling(lambda: 0.0),
    )


def counted(metric) -> dict[tuple[str, ...], float]:
    """Return the samples of a counter that are not zero, by their label values."""
    samples = [
        s for family in metric.collect() for s in family.samples if s.name.endswith("_total")
    ]
    return {tuple(s.labels.values()): s.value for s in samples if s.value}
