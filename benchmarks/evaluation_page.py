"""Write the tables of docs/evaluation.md from what `dualpool evaluate` has found.

    dualpool evaluate --json base.json
    dualpool evaluate --scenarios --json scenarios.json
    python -m benchmarks.evaluation_page base.json scenarios.json

A row that none of the files has stays as it is; a scenario that is new comes last.
"""

import sys
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from statistics import fmean
from typing import Final

import msgspec

from extproc.evaluation.report import Evaluation
from extproc.evaluation.rivals import OURS
from extproc.evaluation.scenario_run import Fared, ScenarioResult
from extproc.evaluation.scores import wilson

_PAGE: Final = Path(__file__).parents[1] / "docs" / "evaluation.md"
_SCENARIOS: Final = "| traffic |"
_COMPARISON: Final = "| threshold | estimator |"

Rows = dict[str, str]
"""By their first cells."""


def comparison_rows(found: Evaluation) -> Rows:
    """Return a row for each estimator at each threshold: means, and the worst tokenizer's."""
    rows = {}
    for threshold in found.thresholds:
        for name in found.estimators:
            scores = [result.score for result in found.of(name, threshold)]
            misrouted = fmean(score.early_misrouted for score in scores)
            over_routed = fmean(score.early_over_routed for score in scores)
            key = f"| {threshold} | {f'**{name}**' if name == OURS else name} |"
            cells = (
                _worst([score.misrouted for score in scores], 3),
                _worst([score.over_routed for score in scores], 2),
                f"{misrouted:.3f} / {over_routed:.2f}",
                _worst([score.median_error for score in scores], 1),
                f"{fmean(score.p99_error for score in scores):.0f}",
                f"{fmean(score.p99_near for score in scores):.1f}",
            )
            rows[key] = f"{key} {' | '.join(cells)} |"
    return rows


def scenario_rows(found: Sequence[ScenarioResult]) -> Rows:
    """Return a row for each scenario, or part of one, over all tokenizers."""
    groups: dict[tuple[str, str], list[ScenarioResult]] = {}
    for result in found:
        groups.setdefault((result.scenario, result.part), []).append(result)
    rows = {}
    for (scenario, part), results in groups.items():
        ours = reduce(add, [each.ours for each in results])
        exact = reduce(add, [each.exact for each in results])
        later = reduce(add, [each.later for each in results])
        forecasts = [each.forecast for each in results if each.forecast is not None]
        key = f"| {', '.join(filter(None, (scenario, part)))} |"
        cells = (
            f"{100 * results[0].target:g}",
            _misrouted(ours),
            f"{100 * ours.over_routed / ours.requests:.2f}",
            f"{100 * exact.over_routed / exact.requests:.2f}",
            f"{100 * ours.counted / max(ours.seen, 1):.3f}",
            _misrouted(later) if forecasts else "",
            f"{100 * fmean(forecasts):.3f}" if forecasts else "",
        )
        rows[key] = f"{key} {' | '.join(cells)} |"
    return rows


def _misrouted(fared: Fared) -> str:
    low, high = wilson(fared.misrouted, fared.requests)
    return f"{100 * fared.misrouted / fared.requests:.3f} ({low:.3f}-{high:.3f})"


def _worst(values: Sequence[float], digits: int) -> str:
    return f"{fmean(values):.{digits}f} ({max(values):.{digits}f})"


def replace_rows(page: str, heading: str, rows: Rows) -> str:
    """Return the page with these rows in the table whose heading begins so."""
    lines, left = page.splitlines(), dict(rows)
    start = next(place for place, line in enumerate(lines) if line.startswith(heading)) + 2
    end = next(place for place in range(start, len(lines)) if not lines[place].startswith("|"))
    for place in range(start, end):
        key = next((key for key in left if lines[place].startswith(key)), None)
        if key:
            lines[place] = left.pop(key)
    return "\n".join([*lines[:end], *left.values(), *lines[end:], ""])


def main(files: Sequence[str]) -> None:
    """Rewrite the page by the results in these files."""
    page = _PAGE.read_text(encoding="utf-8")
    for file in files:
        found = msgspec.json.decode(Path(file).read_bytes(), type=Evaluation | list[ScenarioResult])
        if isinstance(found, Evaluation):
            page = replace_rows(page, _COMPARISON, comparison_rows(found))
        else:
            page = replace_rows(page, _SCENARIOS, scenario_rows(found))
    _PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
