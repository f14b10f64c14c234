"""Queues against closed cases, and against queues that are simulated."""

import heapq
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.planner.sizing.queueing import (
    Queue,
    erlang_b,
    erlang_c,
    mean_wait_s,
    wait_percentile_s,
)

UTILISATION = st.floats(0.01, 0.99)


@given(UTILISATION, st.floats(0.001, 100))
def test_one_server_waits_as_in_m_m_1(rho, service_s):
    queue = Queue(servers=1, rate_per_s=rho / service_s, service_s=service_s)
    assert erlang_c(1, rho) == pytest.approx(rho)
    assert mean_wait_s(queue) == pytest.approx(rho * service_s / (1 - rho))
    exact = service_s / (1 - rho) * math.log(rho / 0.01) if rho > 0.01 else 0
    assert wait_percentile_s(queue) == pytest.approx(max(0, exact))


@given(UTILISATION)
def test_two_servers_wait_as_in_m_m_2(rho):
    assert erlang_c(2, 2 * rho) == pytest.approx(2 * rho**2 / (1 + rho))


@given(st.integers(1, 60), UTILISATION)
def test_erlang_c_is_the_sum_that_defines_it(servers, rho):
    load = servers * rho
    last = load**servers / math.factorial(servers) / (1 - rho)
    below = sum(load**k / math.factorial(k) for k in range(servers))
    assert erlang_c(servers, load) == pytest.approx(last / (below + last))


@given(st.integers(1, 100_000), st.floats(0.5, 1.5))
def test_starting_near_the_load_changes_nothing(servers, ratio):
    load, inverse = servers * ratio, 1.0
    for k in range(1, servers + 1):
        inverse = min(1e300, 1 + inverse * k / load)
    assert erlang_b(servers, load) == pytest.approx(1 / inverse, rel=1e-9, abs=1e-200)


@given(st.integers(1, 100_000), UTILISATION)
def test_more_servers_never_wait_more(servers, rho):
    load = servers * rho
    assert 0 <= erlang_c(servers + 1, load) <= erlang_c(servers, load) <= 1


@given(st.integers(1, 500), UTILISATION, st.floats(0, 20))
def test_a_wait_grows_with_the_variance(servers, rho, scv):
    queues = [
        Queue(servers=servers, rate_per_s=rho * servers, service_s=1, scv=v) for v in (scv, scv + 1)
    ]
    assert mean_wait_s(queues[0]) <= mean_wait_s(queues[1]) * (1 + 1e-9)


def test_one_server_of_any_service_waits_as_pollaczek_and_khinchine_say():
    queue = Queue(servers=1, rate_per_s=0.8, service_s=1, scv=3)
    assert mean_wait_s(queue) == pytest.approx(0.8 * (1 + 3) / 2 / 0.2)


def test_two_constant_servers_wait_as_the_tables_say():
    queue = Queue(servers=2, rate_per_s=1.6, service_s=1, scv=0)
    assert mean_wait_s(queue) == pytest.approx(0.9, rel=0.01)  # F. Hillier and O. Yu (1981)


def test_a_queue_that_cannot_keep_up_waits_for_ever():
    queue = Queue(servers=2, rate_per_s=2, service_s=1)
    assert mean_wait_s(queue) == wait_percentile_s(queue) == math.inf


def test_nobody_waits_where_nobody_comes():
    assert mean_wait_s(Queue(servers=3, rate_per_s=0, service_s=1)) == 0


def test_a_queue_without_servers_is_refused():
    with pytest.raises(ValueError, match="server"):
        Queue(servers=0, rate_per_s=1, service_s=1)


@pytest.mark.parametrize("scv", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("servers", [1, 8, 40])
def test_the_wait_is_that_of_a_simulated_queue(servers, scv):
    waits = simulated(servers, 0.85 * servers, scv)
    queue = Queue(servers=servers, rate_per_s=0.85 * servers, service_s=1, scv=scv)
    assert mean_wait_s(queue) == pytest.approx(waits.mean(), rel=0.15)
    assert wait_percentile_s(queue) == pytest.approx(np.percentile(waits, 99), rel=0.25)


def simulated(servers, rate, scv, n=200_000):
    """Waits of n arrivals that are served in order, the first tenth left out."""
    rng = np.random.default_rng(7)
    service = np.ones(n) if scv == 0 else rng.gamma(1 / scv, scv, n)
    free, waits, now = [0.0] * servers, [], 0.0
    for gap, length in zip(rng.exponential(1 / rate, n), service, strict=True):
        now += gap
        start = max(now, free[0])
        heapq.heapreplace(free, start + length)
        waits.append(start - now)
    return np.array(waits[n // 10 :])
