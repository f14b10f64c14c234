"""All processes as the page shows them."""

import json
from dataclasses import replace

import msgspec
import pytest

from extproc.page.decisions import LATEST, Shown
from extproc.page.digest import Digest
from extproc.page.overview import Around, Facts, Overview
from extproc.routing.pools import Pool
from tests.support.clock import Clock

POOLS = Pool("short", 8192, 6000), Pool("long", 65536, 65536)
SHOWN = Shown(1.0, "short", "fits", "m", "prose/m", "prior", 10, 5, 20, 35, 30, 0)


@pytest.fixture
def clock():
    return Clock(1000.0)


@pytest.fixture
def overview(clock):
    return Overview(Facts("calibrated", 0.001, (POOLS,)), Around(), clock)


def decided(count, pool="short", reason="fits"):
    return Digest({f"dualpool_decisions_total {pool} {reason}": float(count)})


def shown(overview):
    """The figures as a browser reads them."""
    return json.loads(msgspec.json.encode(overview.now()))


def pool(overview, name="short"):
    return next(each for each in shown(overview)["pools"] if each["name"] == name)


def test_before_any_traffic_all_is_0(overview):
    now = shown(overview)
    assert (now["rate"], now["judged"], now["alerts"], now["latest"]) == (0, 0, [], [])
    assert now["decision_s"] == [None, None]
    assert pool(overview)["window"] == 8192
    assert pool(overview)["threshold"] == 6000


@pytest.mark.parametrize("is_shadow", [True, False])
def test_a_shadow_is_called_one(is_shadow, clock):
    facts = Facts("calibrated", 0.001, (POOLS,), is_shadow)
    assert shown(Overview(facts, Around(), clock))["shadow"] is is_shadow


def test_processes_are_added_up(overview):
    overview.tell(0, decided(3))
    overview.tell(1, decided(4))
    assert pool(overview)["reasons"] == {"fits": 7}


def test_a_digest_repeats_what_was_counted_before(overview):
    overview.tell(0, decided(3))
    overview.tell(0, decided(5))
    assert pool(overview)["reasons"] == {"fits": 5}


def test_a_process_that_was_restarted_counts_from_0(overview):
    overview.tell(0, decided(5))
    overview.tell(0, decided(2))
    assert pool(overview)["reasons"] == {"fits": 7}


def test_what_is_older_than_an_hour_does_not_count(overview, clock):
    overview.tell(0, decided(5))
    for _ in range(370):
        clock.now += 10
        overview.tick()
    overview.tell(0, decided(6))
    assert pool(overview)["reasons"] == {"fits": 1}
    assert shown(overview)["seconds"] == 3600


def test_the_rate_is_that_of_the_last_seconds(overview, clock):
    for i in range(1, 31):
        clock.now += 10
        overview.tell(0, decided(100 * i))
        overview.tick()
    assert pool(overview)["rate"] == pytest.approx(10)
    assert shown(overview)["rate"] == pytest.approx(10)


def test_the_history_has_a_point_every_ten_seconds(overview, clock):
    for i in range(30):
        clock.now += 2
        overview.tell(0, decided(20 * (i + 1)))
        overview.tick()
    hour = overview.hour()
    assert hour["times"] == [1010, 1020, 1030, 1040, 1050, 1060]
    assert hour["pools"]["short"] == [10] * 6
    assert hour["pools"]["long"] == [0] * 6
    assert hour["misrouted"] == [None] * 6


def test_shares_are_over_ten_minutes(overview, clock):
    for i in range(1, 101):
        clock.now += 10
        counts = {
            "dualpool_verdicts_total short right": 90.0 * i,
            "dualpool_verdicts_total long over_routed": 8.0 * i,
            "dualpool_misroutes_total short refused": 2.0 * min(i, 20),
        }
        overview.tell(0, Digest(counts))
        overview.tick()
    hour = overview.hour()
    assert hour["misrouted"][9] == 0.02
    assert hour["misrouted"][-1] == 0
    assert hour["over_routed"][-1] == pytest.approx(8 / 98, abs=1e-6)


def test_the_time_of_a_decision_is_read_off_its_buckets(overview):
    counts = {"0.001": 50.0, "0.002": 100.0, "+Inf": 100.0}
    overview.tell(
        0,
        Digest({f"dualpool_decision_seconds_bucket {le}": n for le, n in counts.items()}),
    )
    assert shown(overview)["decision_s"] == [pytest.approx(0.001), pytest.approx(0.00198)]


def test_the_latest_decisions_are_shown_newest_first(overview):
    overview.tell(0, Digest(latest=[replace(SHOWN, at=float(i)) for i in range(5)]))
    assert [each["at"] for each in shown(overview)["latest"]] == [4, 3, 2, 1, 0]
    assert shown(overview)["latest"][0]["budget_tokens"] == 35


def test_the_latest_decisions_are_bounded(overview):
    overview.tell(0, Digest(latest=[SHOWN] * 1000))
    assert len(shown(overview)["latest"]) == LATEST


def test_counters_of_a_broken_worker_are_bounded(overview):
    overview.tell(0, Digest({f"x{i}": 1.0 for i in range(10_000)}))
    overview.tell(0, Digest({f"y{i}": 1.0 for i in range(10_000)}))
    overview.tick()
    assert len(overview._totals) < 3000


def test_an_alert_fires_once_it_has_held_for_its_time(overview, clock):
    overview.tell(0, decided(1000))
    fires = []
    for _ in range(40):
        clock.now += 10
        overview.tick()
        fires.append([each["fires"] for each in shown(overview)["alerts"]])
    assert fires[0] == [False]
    assert fires[28:32] == [[False], [False], [True], [True]]


def test_an_alert_that_no_longer_holds_is_gone(overview, clock):
    overview.tell(0, decided(1000))
    overview.tick()
    overview.tell(0, Digest({"dualpool_answers_total learnt": 1.0}))
    overview.tick()
    assert shown(overview)["alerts"] == []


def test_a_worker_is_missing_for_five_minutes(clock):
    workers = {"dualpool_workers": 2.0, "dualpool_workers_ready": 1.0}
    overview = Overview(Facts("paper", 0.0, (POOLS,)), Around(lambda: workers), clock)
    names = []
    for _ in range(37):
        clock.now += 10
        overview.tick()
        names.append([each["name"] for each in shown(overview)["alerts"]])
    assert names[10] == []
    assert names[-1] == ["DualpoolWorkerMissing"]
    assert shown(overview)["workers"] == [2, 1, 0]


def test_what_is_left_to_envoy_is_counted_apart(overview):
    overview.tell(0, decided(3, "undecided", "unlisted"))
    assert shown(overview)["undecided"] == {"unlisted": 3}
    assert pool(overview)["reasons"] == {}


def test_a_pool_is_shown_with_the_number_of_its_row(clock):
    rows = (POOLS, (Pool("other", 4096, 4096),))
    pools = shown(Overview(Facts("paper", 0.0, rows), Around(), clock))["pools"]
    assert [(each["row"], each["name"]) for each in pools] == [
        *((0, each.name) for each in POOLS),
        (1, "other"),
    ]


def test_what_is_seen_of_a_pool_is_shown(clock):
    seen = {"short": {"stated": 9000, "load": {"state": "known"}}}
    overview = Overview(Facts("paper", 0.0, (POOLS,)), Around(pools=lambda: seen), clock)
    assert pool(overview)["stated"] == 9000
    assert pool(overview)["load"] == {"state": "known"}
    assert "stated" not in pool(overview, "long")


def test_how_what_is_learnt_is_shared_is_shown_and_alerts(clock):
    state = {"connected": False, "agree": False}
    overview = Overview(Facts("paper", 0.0, (POOLS,)), Around(state=lambda: state), clock)
    overview.tick()
    clock.now += 600
    overview.tick()
    assert shown(overview)["state"] == state
    [alert] = shown(overview)["alerts"]
    assert (alert["name"], alert["fires"]) == ("DualpoolReplicasApart", True)


def test_the_share_of_requests_below_the_largest_pool_of_their_row(clock):
    rows = (POOLS, (Pool("other", 4096, 4096),))
    overview = Overview(Facts("paper", 0.0, rows), Around(), clock)
    assert shown(overview)["below"] is None
    overview.tell(0, decided(6))
    overview.tell(1, decided(1, "long"))
    overview.tell(2, decided(1, "other"))
    assert shown(overview)["below"] == 0.75
