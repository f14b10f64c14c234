"""What was learnt, as the page shows it: a bounded number of categories, and the limits."""

from typing import Final

from extproc.budget.category import label
from extproc.budget.values import Figures, Learnt

MOST: Final = 30
"""Categories shown: those with most answers."""

_SHOWN: Final = ("basis", "samples", "bytes_per_token", "relative_error", "relative_margin")


def describe_learnt(learnt: Learnt) -> dict[str, object]:
    """Return the figures for JSON."""
    names = sorted(learnt.categories, key=lambda name: -_samples(learnt.categories[name]))
    return {
        "categories": [_row(name, learnt.categories[name], _SHOWN) for name in names[:MOST]],
        "more": max(0, len(names) - MOST),
        "limits": [
            _row(name, figures, ("target", "misroute_forecast", "risk_level"))
            for name, figures in learnt.limits.items()
        ],
    }


def _samples(figures: Figures) -> float:
    return float(figures.get("samples", 0.0))


def _row(name: str, figures: Figures, shown: tuple[str, ...]) -> dict[str, object]:
    return {"name": label(name)} | {key: figures[key] for key in shown if key in figures}
