"""Which requests move to another pool for the load, and which never do."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extproc.budget.estimate import Basis, Budget
from extproc.routing.load.pool_load import PoolLoad
from extproc.routing.load.spill import EVERY_S, Limits, Spill
from extproc.routing.pools import Decision, Pool, Reason, choose

SHORT, LONG = Pool("short", 8192, 6000), Pool("long", 65536, 65536)
MEDIUM = Pool("medium", 32768, 32768)
POOLS = (SHORT, LONG)
LIMITS = Limits(wait_s=0.5, stale_s=2.0)
SMALL = Budget(500, 0, 500, Basis.CALIBRATED)
BORDERLINE = Budget(7000, 500, 500, Basis.CALIBRATED)
LARGE = Budget(9000, 0, 0, Basis.CALIBRATED)
IDLE = PoolLoad(servers=1, known=1, running=5, kv_usage=0.1, rate=10, room=50, arrivals=5)
FULL = PoolLoad(servers=1, known=1, running=20, waiting=60, rate=10, room=20, arrivals=20)


class Service:
    """A Spill with a clock and draws of the test's own."""

    def __init__(self, pools: tuple[Pool, ...] = POOLS, draw: float | None = None) -> None:
        self.now_s = 0.0
        self.pools = pools
        rng = random.Random(0)
        self.spill = Spill(
            pools, LIMITS, lambda: self.now_s, rng.random if draw is None else lambda: draw
        )

    def tell(self, **loads: PoolLoad) -> None:
        self.spill.tell(loads)

    def decide(self, budget: Budget = SMALL) -> Decision:
        found = self.spill.move(choose(budget, self.pools), budget, self.pools)
        self.spill.count(found.pool.name)
        return found

    def send(self, seconds: float, rate: float, budget: Budget = SMALL) -> Counter[str]:
        """Decide for so many requests a second; return where they went."""
        found = Counter[str]()
        for _ in range(int(seconds * rate)):
            self.now_s += 1 / rate
            found[self.decide(budget).pool.name] += 1
        return found

    def share(self, of: str = "short", to: str = "long") -> float:
        return self.spill.describe()[of]["spills"].get(to, 0.0)  # type: ignore[index, no-any-return]


def test_nothing_moves_before_there_are_reports():
    service = Service(draw=0.0)
    assert service.send(5, 20) == {"short": 100}


def test_nothing_moves_while_no_pool_is_saturated():
    service = Service(draw=0.0)
    service.tell(short=IDLE, long=IDLE)
    assert service.send(0.5, 20) == {"short": 10}


def test_a_short_request_moves_from_a_saturated_pool():
    service = Service(draw=0.0)
    service.tell(short=FULL, long=IDLE)
    assert service.decide() == Decision(LONG, Reason.SPILL)


def test_only_a_share_moves():
    service = Service()
    service.send(6, 20)
    service.tell(short=structs.replace(FULL, waiting=15), long=IDLE)
    found = service.send(1, 20)
    assert 0 < found["long"] < 20
    assert 0 < service.share() < 1


def test_fewer_move_as_those_that_moved_fill_the_other_pool():
    service = Service(draw=0.0)
    service.send(6, 20)
    service.tell(short=FULL, long=structs.replace(IDLE, running=40))
    before = service.share()
    service.send(1, 20)
    assert service.share() < before


@pytest.mark.parametrize(
    "long",
    [
        PoolLoad(servers=1),
        structs.replace(FULL, waiting=5, rate=10),
        structs.replace(IDLE, kv_usage=0.9),
        PoolLoad(servers=1, known=0, down=1),
    ],
    ids=["unknown", "saturated", "cache full", "down"],
)
def test_nothing_moves_to_a_pool_that_cannot_take_it(long):
    service = Service(draw=0.0)
    service.tell(short=FULL, long=long)
    assert service.decide() == Decision(SHORT, Reason.FITS)


def test_saturated_everywhere_is_as_if_there_were_no_load():
    service = Service(draw=0.0)
    service.tell(short=FULL, long=FULL)
    for budget in (SMALL, BORDERLINE, LARGE):
        assert service.decide(budget) == choose(budget, POOLS)


def test_a_borderline_request_moves_down_while_its_whole_budget_fits_the_window():
    service = Service(draw=0.0)
    service.tell(short=IDLE, long=FULL)
    assert choose(BORDERLINE, POOLS) == Decision(LONG, Reason.THRESHOLD)
    assert service.decide(BORDERLINE) == Decision(SHORT, Reason.SPILL)
    assert service.decide(LARGE) == Decision(LONG, Reason.CAPACITY)


@pytest.mark.parametrize("reason", [Reason.STATEFUL, Reason.OVERSIZE, Reason.UNREADABLE])
def test_what_has_another_reason_stays(reason):
    service = Service(draw=0.0)
    service.tell(short=IDLE, long=FULL)
    decision = Decision(LONG, reason)
    assert service.spill.move(decision, SMALL, POOLS) is decision


def test_a_window_that_has_shrunk_counts():
    service = Service(draw=0.0)
    service.tell(short=IDLE, long=FULL)
    shrunk = (Pool("short", 6500, 6000), LONG)
    decision = choose(BORDERLINE, shrunk)
    assert service.spill.move(decision, BORDERLINE, shrunk) == decision


def test_all_move_from_a_pool_that_is_down_even_to_one_that_is_not_known():
    service = Service(draw=0.999)
    service.tell(short=PoolLoad(servers=1, down=1), long=PoolLoad(servers=1))
    assert service.decide() == Decision(LONG, Reason.SPILL)


def test_reports_get_stale():
    service = Service(draw=0.0)
    service.tell(short=FULL, long=IDLE)
    service.now_s = 2.1
    assert service.decide().reason is Reason.FITS
    assert service.spill.describe()["short"]["state"] == "unknown"  # type: ignore[index]


def test_a_pool_stays_saturated_until_half_of_the_wait_is_reached():
    service = Service()
    service.tell(short=structs.replace(FULL, waiting=4), long=IDLE)
    assert service.share() == 0
    service.tell(short=structs.replace(FULL, waiting=6), long=IDLE)
    assert service.share() > 0
    service.tell(short=structs.replace(FULL, waiting=4), long=IDLE)
    assert service.share() > 0
    service.tell(short=structs.replace(FULL, waiting=2), long=IDLE)
    assert service.share() == 0


def test_what_was_sent_since_the_report_counts():
    service = Service(draw=1.0)
    service.tell(short=structs.replace(IDLE, running=48), long=IDLE)
    service.send(0.5, 100)
    assert service.share() > 0


def test_what_was_sent_before_the_report_is_in_it():
    service = Service(draw=1.0)
    service.send(0.5, 100)
    service.now_s += EVERY_S
    service.tell(short=structs.replace(IDLE, running=48), long=IDLE)
    assert service.share() == 0


def test_what_other_replicas_send_is_estimated_from_the_arrivals():
    service = Service(draw=1.0)
    service.send(5, 10)
    service.tell(short=structs.replace(IDLE, running=48, arrivals=200), long=IDLE)
    service.send(0.5, 10)
    assert service.share() > 0


def test_replicas_that_see_the_same_reports_move_together_what_one_would():
    one, many = Service(), [Service() for _ in range(20)]
    loads = {"short": structs.replace(FULL, waiting=15, arrivals=20), "long": IDLE}
    one.send(6, 20)
    for each in many:
        each.send(6, 1)
    for each in (one, *many):
        each.spill.tell(loads)
    shares = [each.share() for each in many]
    assert sum(shares) / 20 == pytest.approx(one.share(), rel=0.1)


def test_the_best_of_several_pools_is_chosen():
    pools = (SHORT, MEDIUM, LONG)
    service = Service(pools, draw=0.0)
    medium = structs.replace(IDLE, running=52, waiting=2)
    service.tell(short=FULL, medium=medium, long=IDLE)
    assert service.decide().pool is LONG
    service.tell(short=FULL, medium=IDLE, long=structs.replace(FULL, waiting=4))
    assert service.decide().pool is MEDIUM


def test_two_saturated_pools_share_the_room_of_a_third():
    service = Service((SHORT, MEDIUM, LONG))
    long = structs.replace(IDLE, running=48)
    service.send(6, 20)
    service.tell(short=FULL, medium=IDLE, long=long)
    alone = service.share()
    service.tell(short=FULL, medium=FULL, long=long)
    assert service.share() < alone


def test_a_pool_never_seen_full_takes_as_many_again_as_it_runs():
    service = Service()
    service.send(6, 100)
    busy = structs.replace(IDLE, room=0, running=40, kv_usage=0)
    service.tell(short=FULL, long=structs.replace(busy, running=0))
    few = service.share()
    service.tell(short=FULL, long=busy)
    assert 0 < few < service.share()


def test_loads_of_pools_that_are_not_ours_are_left():
    service = Service()
    service.tell(other=FULL)
    assert set(service.spill.describe()) == {"short", "long"}


LOADS = st.builds(
    PoolLoad,
    servers=st.integers(0, 3),
    known=st.integers(0, 3),
    down=st.integers(0, 3),
    age_s=st.floats(0, 3),
    running=st.floats(0, 100),
    waiting=st.floats(0, 1000),
    room=st.floats(0, 100),
    kv_usage=st.floats(0, 1),
    rate=st.floats(0.1, 100),
    arrivals=st.floats(0, 100),
)


@given(st.lists(st.tuples(LOADS, LOADS), max_size=5), st.integers(0, 70_000), st.integers(0, 3000))
def test_a_request_never_goes_where_its_budget_does_not_fit(loads, prompt, margin):
    budget = Budget(prompt, margin, 0, Basis.CALIBRATED)
    service = Service()
    for short, long in loads:
        service.tell(short=short, long=long)
        service.now_s += 0.3
        found = service.decide(budget)
        assert found == choose(budget, POOLS) or budget.tokens <= found.pool.max_model_len
