"""What a live service's lengths and last hour say of a split: a table and sentences."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.table import Table

from extproc.planner.report.layout import make_table
from extproc.planner.sizing.plans import Plan, count_gpus
from extproc.planner.sizing.study import Study
from extproc.planner.traffic.live import Category, LiveHour

_ROWS: Final = 20
_FEW_S: Final = 120


def category_table(categories: Sequence[Category], done: Study) -> Table:
    """Return a row for each of the most frequent categories, and their shares of the short pool."""
    threshold = done.split.pools[0].threshold
    table = make_table(
        f"Categories; short: up to {threshold} tokens",
        *("category", "requests", "of all", "of all tokens"),
        *("prompt P50", "P99", "output P50", "P99", "short"),
    )
    requests = sum(each.count for each in categories)
    tokens = sum(_tokens(each) for each in categories)
    for each in categories[:_ROWS]:
        lengths = each.lengths
        table.add_row(
            lengths.name,
            f"{each.count:,}",
            f"{each.count / requests:.1%}",
            f"{_tokens(each) / tokens:.1%}",
            *(f"{lengths.quantile(lengths.prompt, q):.0f}" for q in (0.5, 0.99)),
            *(f"{lengths.quantile(lengths.output, q):.0f}" for q in (0.5, 0.99)),
            f"{lengths.share_within(threshold):.1%}",
        )
    return table


def _tokens(category: Category) -> float:
    return category.count * float(category.lengths.weights @ category.lengths.total)


def describe_hour(hour: LiveHour, done: Study) -> Iterator[str]:
    """Yield sentences on the last hour, without a full stop."""
    chosen = ", ".join(
        f"{name} for {count:,} ({count / hour.requests:.1%})"
        for name, count in hour.by_pool.items()
    )
    yield (
        f"in the last {_duration(hour.seconds)} the service had {hour.requests:,} requests, "
        f"{hour.mean_per_s:.2f}/s and {hour.busiest_per_s:.2f}/s in the busiest minute that has "
        f"ended, and chose "
        f"{chosen}; {hour.misrouted} of {hour.judged:,} judged answers were misrouted"
    )
    if done.split.thresholds:
        sent = ", ".join(f"{pool.sent:.1%} to {pool.name}" for pool in done.split.pools)
        yield (
            f"a split at {', '.join(map(str, done.split.thresholds))} would have sent {sent}; its "
            f"{done.split.gpus} GPUs would have been loaded {_loads(hour, done.split)} on average, "
            f"one pool of {count_gpus(done.one_pool.gpus)} {_loads(hour, done.one_pool)}"
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < _FEW_S else f"{seconds / 60:.0f} minutes"


def _loads(hour: LiveHour, plan: Plan) -> str:
    # The load is in proportion to the rate.
    scale = hour.mean_per_s / plan.rate_per_s
    return ", ".join(f"{pool.utilisation * scale:.0%}" for pool in plan.pools)
