"""The Grafana dashboard: its file is up to date, and every panel shows data."""

import json
import math
import shutil

import pytest
import yaml

from deploy.grafana.dashboard import write_dashboard
from deploy.grafana.panels import PANELS, Kind, Panel, Query, place_panels
from deploy.grafana.picture import draw
from extproc.local.children import StackError
from extproc.local.envoy import find_envoy
from tests.support.grafana_schema import faults
from tests.support.local_stack import running, wait_for
from tests.support.paths import ROOT
from tests.support.prometheus_server import ask, watching

pytestmark = pytest.mark.slow

GRAFANA = ROOT / "deploy" / "grafana"
FILE = GRAFANA / "dashboards" / "dualpool.json"
WORDS = "Where do owls sleep at noon? "


@pytest.fixture(scope="module")
def prometheus():
    """The URL of a Prometheus that watches a stack with traffic."""
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus: apt-get install --no-install-recommends prometheus")
    try:
        find_envoy()
    except StackError as error:
        pytest.skip(str(error))
    further = {"tenants": {"header": "x-tenant"}, "load": {"spill": True, "discover": True}}
    with running(**further) as stack, watching(stack.ports) as url:
        wait_for(lambda: len(ask(url, "up == 1")) == 4)
        for times in (5, 20, 40, 4000):
            send(stack, times)
        # Until something has risen since it was first scraped.
        risen = "rate(dualpool_budget_relative_error_count[5m]) > 0"
        wait_for(lambda: send(stack, 10) or ask(url, risen))
        yield url


def send(stack, times):
    message = {"role": "user", "content": WORDS * times}
    body = {"model": stack.model, "max_tokens": 5, "messages": [message]}
    assert stack.post("/v1/chat/completions", body).status == 200


def shows(url, query):
    values = [value for _, value in ask(url, query.expr)]
    return values and not any(math.isnan(value) for value in values)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_query_of_a_panel_gives_data(prometheus, panel):
    for query in panel.queries:
        wait_for(lambda query=query: shows(prometheus, query), seconds=60)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_every_series_of_a_panel_has_a_name_of_its_own(prometheus, panel):
    for query in panel.queries:
        names = [name_series(query.legend, labels) for labels, _ in ask(prometheus, query.expr)]
        assert len(set(names)) == len(names)


def name_series(legend, labels):
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend


def test_all_panels_are_drawn_without_grafana(prometheus, tmp_path):
    draw(prometheus, str(tmp_path / "dashboard.png"), minutes=1)
    assert (tmp_path / "dashboard.png").stat().st_size > 50_000


def test_a_stack_without_faults_fires_no_alert(prometheus):
    assert ask(prometheus, 'ALERTS{alertstate="firing"}') == []


def test_the_file_is_what_is_written():
    assert FILE.read_text(encoding="utf-8") == write_dashboard()


def test_the_file_has_the_types_that_grafana_publishes(tmp_path):
    assert faults(tmp_path, json.loads(FILE.read_text(encoding="utf-8"))) == []


def test_a_fault_in_the_file_is_found(tmp_path):
    dashboard = json.loads(FILE.read_text(encoding="utf-8"))
    stat, *_, lines = dashboard["panels"]
    dashboard["schemaVersion"] = "39"
    stat["gridpos"] = stat.pop("gridPos")
    stat["options"]["graphMode"] = "nothing"
    lines["fieldConfig"]["defaults"]["thresholds"]["mode"] = "relative"
    lines["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] = "normally"
    found = "\n".join(faults(tmp_path, dashboard))
    for fault in ("to type 'number'", '"gridpos"', '"nothing"', '"relative"', '"normally"'):
        assert fault in found


def test_the_data_source_is_the_one_provisioned():
    provisioned = GRAFANA / "provisioning" / "datasources" / "prometheus.yml"
    [source] = yaml.safe_load(provisioned.read_text(encoding="utf-8"))["datasources"]
    panels = json.loads(FILE.read_text(encoding="utf-8"))["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}


def test_panels_fill_rows_of_one_height():
    rows = {}
    for _, place in place_panels(PANELS):
        rows.setdefault(place.y, []).append(place)
    for row in rows.values():
        assert sum(place.width for place in row) == 24
        assert len({place.height for place in row}) == 1


def test_a_row_that_is_full_ends():
    panels = [
        Panel(title="", note="", queries=(Query("1", ""),), kind=Kind.STAT, width=width)
        for width in (16, 8, 24)
    ]
    assert [(place.x, place.y) for _, place in place_panels(panels)] == [(0, 0), (16, 0), (0, 8)]
