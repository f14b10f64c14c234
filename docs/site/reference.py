"""The reference pages of the site, written from the code: settings, metrics, headers, commands."""

import argparse
import os
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry

from extproc import names
from extproc.budget.values import Learnt, Observation, Outcome
from extproc.build import build_learner, build_rules
from extproc.cli import whole_parser
from extproc.config.load import render
from extproc.config.settings import Settings
from extproc.request.reader import Endpoint, read_request
from extproc.routing.pools import Reason
from extproc.routing.route import route
from extproc.stream.metrics import LearntCollector, Metrics, WorkerMetrics

GENERATED: Final = "*Written from the code when the site was built.*"

_HEADERS: Final = {
    names.POOL_HEADER: "the name of the chosen pool; in the answer: of the pool that answered",
    names.REASON_HEADER: "why this pool; see below",
    names.BUDGET_HEADER: "tokens of prompt and output, of the largest sequence",
    names.CATEGORY_HEADER: "the category whose errors and outputs were used",
    names.BASIS_HEADER: "`prior`, nothing was learnt of this model; `borrowed`, other categories, "
    "or what servers have counted; `calibrated`, 50 answers of this one or more",
    names.ROW_HEADER: "without a decision: the largest pool of the row with the model, as Envoy "
    "has read it",
    names.RETRYABLE_HEADER: "`1`: a 400 of this pool may mean that the request is too long for it",
}


def pages() -> dict[str, str]:
    """Return the pages by their path in the site."""
    return {
        "reference/settings.md": _settings(),
        "reference/metrics.md": _metrics(),
        "reference/headers.md": _headers(),
        "reference/commands.md": _commands(),
    }


def _settings() -> str:
    return "\n".join(
        [
            # Without the list of headings there is room for the longest line.
            "---\nhide: [toc]\n---\n",
            "# Settings\n",
            f"{GENERATED} All settings with their defaults, units and limits, as `dualpool check` "
            "prints them. Every key may be left out.\n",
            f"```yaml\n{render(Settings())}```",
        ]
    )


def _metrics() -> str:
    registry = CollectorRegistry()
    Metrics(registry)
    WorkerMetrics(registry)
    rows = [
        f"| `{family.name}` | {family.type} | {family.documentation} |"
        for family in [*registry.collect(), *LearntCollector(_learnt()).collect()]
    ]
    return "\n".join(
        [
            "# Metrics\n",
            f"{GENERATED} Counters end with `_total`. What each label says is in "
            "[Operate](../operate.md#metrics).\n",
            "| metric | type | what it is |",
            "|---|---|---|",
            *sorted(rows),
        ]
    )


def _learnt() -> Learnt:
    """Return what is learnt from one answer, which has every figure."""
    learner, rules = build_learner(Settings()), build_rules(Settings())
    request = read_request(Endpoint.COMPLETION, b'{"model": "m", "prompt": "Where do owls sleep?"}')
    asked = route(request, "", learner, rules).asked
    learner.learn(Observation(asked, Outcome.COMPLETE, rules.pools[0].max_model_len, 5, 5))
    return learner.learnt()


def _headers() -> str:
    return "\n".join(
        [
            "# Headers\n",
            f"{GENERATED} Envoy removes these from what clients send, and adds the first five to "
            "the answer.\n",
            "| header of the request to the pool | value |",
            "|---|---|",
            *(f"| `{name}` | {text} |" for name, text in _HEADERS.items()),
            "\nReasons: " + ", ".join(f"`{reason.value}`" for reason in Reason) + ".",
        ]
    )


def _commands() -> str:
    os.environ["COLUMNS"] = "80"  # whatever this terminal has
    parser = whole_parser()
    parts = [f"\n## {name}\n\n```text\n{each.format_help()}```" for name, each in _below(parser)]
    return "\n".join(
        ["# Commands\n", f"{GENERATED}\n", f"```text\n{parser.format_help()}```", *parts]
    )


def _below(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the commands of a parser, and theirs, with their words."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, command in action.choices.items():
                yield name, command
                yield from ((f"{name} {word}", each) for word, each in _below(command))
