"""Read a cumulative distribution of total tokens: a table of tokens and share of requests within.

Shares may be in per cent. Invariant: both columns ascend, and the last share is the whole.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from extproc.planner.traffic.lengths import InputError, from_cdf
from extproc.planner.traffic.rows import Reading, read_number, read_tokens

_SHARES: Final = frozenset(
    {"cdf", "share", "percent", "percentage", "fraction", "cumulative", "probability", "quantile"}
)
_ROUNDING: Final = 1e-3
"""How far the last share may be from the whole: tables are rounded."""

Cell = tuple[int, object, object]
"""Row, tokens, share."""


def share_column(columns: Collection[str]) -> int | None:
    """Return which of two columns, 0 or 1, is the share of a CDF; None if neither is."""
    if len(columns) != 2:
        return None
    names = [name.strip(" %()").casefold() for name in columns]
    return next((place for place, name in enumerate(names) if name in _SHARES), None)


def read_cdf(cells: Iterable[Cell], name: str, output_share: float) -> Reading:
    """Return the distribution. Raises InputError with the first wrong row."""
    rows = list(_rising(cells, name))
    if not rows:
        raise InputError(name, 0, "a CDF without rows; at least one is needed")
    row, _, last = rows[-1]
    # The last share, about 1 or about 100, tells the unit of the whole table.
    whole = 1.0 if last < 2 else 100.0
    if abs(last / whole - 1) > _ROUNDING:
        raise InputError(name, row, f"the last share is {last:g}; allowed: 1, or 100 %")
    # A table may begin at 0 tokens; from_cdf takes logarithms.
    points = [(max(1, tokens), share / last) for _, tokens, share in rows]
    try:
        workload = from_cdf(name, points, output_share)
    except ValueError:
        text = f"{points[0][0]} tokens hold requests; a request has at least 2"
        raise InputError(name, rows[0][0], text) from None
    note = f"{name}: only totals; {output_share:.0%} of each is taken for output"
    return Reading(requests=workload, count=0, notes=(note,))


def _rising(cells: Iterable[Cell], name: str) -> Iterator[tuple[int, int, float]]:
    last_tokens, last_share = -1, 0.0
    for row, tokens_cell, share_cell in cells:
        try:
            tokens, share = read_tokens(tokens_cell, "tokens", least=0), _share(share_cell)
        except ValueError as error:
            raise InputError(name, row, str(error)) from None
        if tokens <= last_tokens:
            text = f"{tokens} tokens after {last_tokens}; allowed: more in every row"
            raise InputError(name, row, text)
        if share < last_share:
            text = f"the share falls from {last_share:g} to {share:g}; allowed: rising shares"
            raise InputError(name, row, text)
        last_tokens, last_share = tokens, share
        yield row, tokens, share


def _share(cell: object) -> float:
    share = read_number(cell.strip().removesuffix("%") if isinstance(cell, str) else cell)
    if not 0 <= share <= 100 * (1 + _ROUNDING):  # false for NaN too
        raise ValueError(f"the share is {cell!r}; allowed: from 0 to 1, or from 0 to 100 per cent")
    return share
