"""Write the Grafana dashboard's JSON from deploy/grafana/panels.py.

Usage: `python -m deploy.grafana.dashboard > deploy/grafana/dashboards/dualpool.json`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from deploy.grafana.panels import PANELS, TARGET, Kind, Panel, Place, place_panels

_SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
_OPTIONS: Final[Mapping[Kind, Mapping[str, object]]] = {
    Kind.STAT: {
        "graphMode": "none",
        "textMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    Kind.LINES: {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
}


def write_dashboard() -> str:
    """Return the dashboard as Grafana's JSON (its classic schema)."""
    placed = enumerate(place_panels(PANELS), 1)
    dashboard = {
        "uid": "dualpool",
        "title": "Dualpool",
        "description": "What the service routes and learns, and the state of the pools.",
        "tags": ["dualpool"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "panels": [_panel(number, panel, place) for number, (panel, place) in placed],
    }
    return json.dumps(dashboard, indent=2) + "\n"


def _panel(number: int, panel: Panel, place: Place) -> dict[str, object]:
    return {
        "id": number,
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.note,
        "datasource": _SOURCE,
        "gridPos": {"x": place.x, "y": place.y, "w": place.width, "h": place.height},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": query.expr,
             "legendFormat": query.legend}
            for index, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": list(_overrides(panel))},
        "options": _OPTIONS[panel.kind],
    }  # fmt: skip


def _defaults(panel: Panel) -> dict[str, object]:
    steps: list[dict[str, object]] = [{"color": "green", "value": None}]
    if panel.alarming is not None:
        steps.append({"color": "red", "value": panel.alarming})
    defaults: dict[str, object] = {
        "unit": panel.unit.value,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.kind is Kind.STAT:
        return defaults
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    custom = {"fillOpacity": 30 if panel.stacked else 0, "stacking": stacking}
    least = {} if panel.signed else {"min": 0}
    return {**defaults, **least, "custom": custom}


def _overrides(panel: Panel) -> Iterator[dict[str, object]]:
    if any(query.legend == TARGET for query in panel.queries):
        yield {
            "matcher": {"id": "byName", "options": TARGET},
            "properties": [
                {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
                {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}},
            ],
        }


if __name__ == "__main__":
    sys.stdout.write(write_dashboard())
