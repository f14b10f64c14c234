"""Report the scenarios as one table."""

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from statistics import fmean
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from extproc.evaluation.scenario_run import Fared, ScenarioResult
from extproc.evaluation.scores import wilson

_COLUMNS: Final = (
    "requests", "target", "misrouted (95 %)", "over", "exact: mis. (95 %)", "exact: over",
    "2nd half (95 %)", "forecast", "counted", "near", "recall", "reserved",
)  # fmt: skip
_LEGEND: Final = """\
In per cent of all requests, those before anything was learnt too; over all tokenizers
({tokenizers}).
95 %: Wilson's interval. exact: a tokenizer that knows every prompt and learns outputs as ours does.
2nd half: misrouted, of its requests alone. forecast: the service's own, mean over that half.
counted: misroutes by the service's own metric, of the answers that it saw, each weighted by
1 / the chance to see it. near: misrouted, of the requests that need 0.8 to 1.25 times a limit.
recall: not misrouted, of those that the smallest pool cannot hold. reserved: kept from the smallest
pool by a stated limit alone: the tokens that they used would have fitted.
Yellow: more are misrouted than the target permits, beyond chance.
"""
_SKIPPED: Final = (
    "{name}: skipped, no tokenizer has a chat template; give a --tokenizer FILE with a"
    " tokenizer_config.json beside it"
)


def print_scenarios(
    console: Console, results: Sequence[ScenarioResult], skipped: Sequence[str] = ()
) -> None:
    """Print a row for each scenario, or part of one, over all tokenizers, and what was skipped."""
    tokenizers = ", ".join(dict.fromkeys(result.tokenizer for result in results))
    console.print(_LEGEND.format(tokenizers=tokenizers), highlight=False, soft_wrap=True)
    table = Table(title="Scenarios", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in dict.fromkeys((result.scenario, result.part) for result in results):
        _add(table, [each for each in results if (each.scenario, each.part) == row])
    if results:
        console.print(table)
    for name in skipped:
        console.print(_SKIPPED.format(name=name), highlight=False, soft_wrap=True)


def _add(table: Table, results: Sequence[ScenarioResult]) -> None:
    first, ours = results[0], _sum(result.ours for result in results)
    exact, target = _sum(result.exact for result in results), 100 * first.target
    forecasts = [each.forecast for each in results if each.forecast is not None]
    later = _sum(result.later for result in results)
    table.add_row(
        ", ".join(filter(None, (first.scenario, first.part))),
        str(ours.requests),
        f"{target:g}",
        _misrouted(ours),
        f"{_percent(ours.over_routed, ours.requests):.2f}",
        _misrouted(exact),
        f"{_percent(exact.over_routed, exact.requests):.2f}",
        _misrouted(later) if forecasts else "",
        f"{100 * fmean(forecasts):.3f}" if forecasts else "",
        f"{_percent(ours.counted, ours.seen):.3f}",
        f"{_percent(ours.near_misrouted, ours.near):.2f}",
        f"{100 - _percent(ours.long_misrouted, ours.long):.2f}",
        f"{_percent(ours.reserved, ours.requests):.2f}",
        style="yellow" if wilson(ours.misrouted, ours.requests)[0] > target else "",
    )


def _sum(parts: Iterable[Fared]) -> Fared:
    return reduce(add, parts, Fared())


def _misrouted(fared: Fared) -> str:
    low, high = wilson(fared.misrouted, fared.requests)
    share = _percent(fared.misrouted, fared.requests)
    return f"{share:.3f} ({low:.3f}-{high:.3f})"


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0
