"""Model one pool under load: the rate that its instances serve and the latency of its clients.

An instance runs n = max_num_seqs sequences. With W, H, K the pace's weights, sequence and KV terms
and r the KV entries of a decoding sequence, an iteration takes t = W + (H + K r) n, plus the
computation of prefills; if a token of P takes its time while the weights are read (overlap), W is
max(W, P n). A request stays for I iterations (prefill and decode); meanwhile n others arrive, and
the prefill of each adds e seconds: E[S] = E[I] t + n E[e], and an instance serves mu = n / E[S].
Requests queue twice: for a slot (all slots of the pool, M/G/c) and for the prefill, which an
instance does one at a time (M/G/1). The slot queue assumes full slots, which is conservative; the
duration of an iteration is taken at the load.
"""

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final

import numpy as np

from extproc.planner.sizing.queueing import Queue, erlang_c, wait_of_waiting_s
from extproc.planner.traffic.condensing import condense
from extproc.planner.traffic.lengths import Floats, Workload
from extproc.simulator.engine.profiles import InstanceProfile

SHARE: Final = 0.99
Z99: Final = 2.326
"""The 99th percentile of the standard normal distribution."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Requests:
    """Work that each request of a workload is for an instance, sorted by total tokens.

    own_s: seconds of the prefill alone. flow_s: the same if prompts share iterations, so that the
    weights are charged per token. steps: iterations of the prefill. extra_s: seconds that the
    prefill adds to iterations that run anyway. held: KV entries times iterations while decoding.
    """

    total: Floats
    output: Floats
    weights: Floats
    own_s: Floats
    flow_s: Floats
    steps: Floats
    flow_steps: Floats
    extra_s: Floats
    iterations: Floats
    held: Floats
    held_squared: Floats

    def between(self, above: float, up_to: float) -> "Requests":
        """Return the requests between two quantiles, each a share of all requests."""
        # The shares are sums of the same weights in another order, so they miss a row's edge by
        # rounding, which without 1e-9 would add or lose that row.
        low, high = np.searchsorted(np.cumsum(self.weights), [above + 1e-9, up_to - 1e-9])
        last = self.weights.size - 1
        return self.rows(min(int(low), last), min(max(low, high), last) + 1)

    def rows(self, first: int, end: int) -> "Requests":
        """Return the rows from `first` up to `end`, exclusive."""
        part = slice(first, end)
        return Requests(**{field.name: getattr(self, field.name)[part] for field in fields(self)})

    @cached_property
    def share(self) -> float:
        """Their share of all requests."""
        return float(self.weights.sum())

    def mean(self, values: Floats) -> float:
        """Return the weighted mean of one value per request."""
        return float(self.weights @ values) / self.share


def requests_of(workload: Workload, profile: InstanceProfile, batched_tokens: int) -> Requests:
    """Compute the work of each request; `batched_tokens` is max_num_batched_tokens."""
    prompt, output, weights = condense(workload)
    order = np.argsort(prompt + output, kind="stable")
    prompt, output, weights = prompt[order], output[order], weights[order]
    pace = profile.pace
    weights_s = pace.weights_ms / pace.speed / 1e3
    tokens_s = pace.prefill_token_ms * prompt / pace.speed / 1e3
    # Token i attends to the i tokens before it: prompt**2 / 2 pairs.
    pairs_s = pace.prefill_pair_ms * prompt**2 / 2 / pace.speed / 1e3
    # Published profiles read the weights once per chunk_tokens, also within one iteration: 2,000
    # tokens at 512 a chunk and 2048 a batch are 1 step of 4 chunks, so 3 further reads of 8 ms:
    # extra_s = 24 ms. Measured profiles have chunk_tokens = max_num_batched_tokens, and extra reads
    # are 0.
    steps = np.ceil(prompt / batched_tokens)
    chunks = np.maximum(steps, np.ceil(prompt / pace.chunk_tokens))
    # Not rounded up: the end of one prompt and the start of the next share an iteration.
    whole = np.maximum(prompt / batched_tokens, prompt / pace.chunk_tokens)
    own_s, flow_s = weights_s * chunks, weights_s * whole
    if pace.overlap:
        # The last chunk of a long prompt may be bound by the weights; it is not counted apart.
        own_s, flow_s = np.maximum(own_s, tokens_s), np.maximum(flow_s, tokens_s)
    else:
        own_s, flow_s = own_s + tokens_s, flow_s + tokens_s
    own_s = np.maximum(own_s + pairs_s, pace.launch_ms / pace.speed / 1e3)
    return Requests(
        total=prompt + output,
        output=output,
        weights=weights,
        own_s=own_s,
        flow_s=flow_s + pairs_s,
        steps=steps,
        flow_steps=prompt / batched_tokens,
        extra_s=own_s - weights_s * steps,
        # The last step of the prefill yields the first output token.
        iterations=steps + output - 1,
        # The integrals of prompt + k and of its square over the output tokens k. Divided by the
        # mean output they are means over iterations, in which long answers count more often.
        held=output * (prompt + output / 2),
        held_squared=output * (prompt**2 + prompt * output + output**2 / 3),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolModel:
    """An instance of a pool that runs up to `slots` sequences of these requests."""

    requests: Requests
    profile: InstanceProfile
    slots: int

    @cached_property
    def iterations(self) -> float:
        """Mean iterations of a request."""
        return self.requests.mean(self.requests.iterations)

    @cached_property
    def _weights_s(self) -> float:
        return self.profile.pace.weights_ms / self.profile.pace.speed / 1e3

    @cached_property
    def _each_s(self) -> float:
        """Seconds that a running sequence adds to an iteration, including its KV entries."""
        requests, pace = self.requests, self.profile.pace
        entries = requests.mean(requests.held) / requests.mean(requests.output)
        return (pace.sequence_ms + pace.kv_token_ms * entries) / pace.speed / 1e3

    @cached_property
    def _extra_s(self) -> tuple[float, float]:
        """Mean and mean square of the seconds that a prefill adds to iterations."""
        extra = self.requests.extra_s
        return self.requests.mean(extra), self.requests.mean(extra**2)

    @cached_property
    def _per_output(self) -> float:
        return self.requests.mean(1 / self.requests.output)

    def sequences_s(self, running: float) -> float:
        """Return the seconds that `running` sequences add to an iteration."""
        return running * self._each_s

    def token_s(self, running: float) -> float:
        """Return the mean seconds between two tokens, including the prefills of other requests."""
        # Each of the `running` sequences is prefilled once in its I iterations, so an iteration
        # carries running / I prefills.
        prefills = running / self.iterations
        decoded_s = self._dense_s(running) + self.sequences_s(running)
        if self.profile.pace.overlap:
            # An iteration that is bound by the computation of a prefill computes for the decoding
            # sequences too, which else the reading of the weights hides.
            pace = self.profile.pace
            decoded_s += min(1.0, prefills) * running * pace.prefill_token_ms / pace.speed / 1e3
        return decoded_s + prefills * self._extra_s[0]

    def _dense_s(self, running: float) -> float:
        """Return the seconds in which an iteration that only decodes passes the weights."""
        pace = self.profile.pace
        beyond = 0 < pace.graph_sequences < running
        ms = pace.dense_ms(math.ceil(running), 0) + pace.eager_ms * beyond
        return ms / pace.speed / 1e3

    def tpot_p99_s(self, running: float) -> float:
        """Return the 99th percentile of the mean time between tokens of a request.

        A normal approximation: the number of prefills during an answer is random, and the shorter
        the answer, the more a single one delays it.
        """
        # With r prefills per iteration, those during n tokens add a compound Poisson sum of
        # variance n r E[extra**2], so their mean per token has r E[extra**2] / n.
        spread = running / self.iterations * self._extra_s[1]
        return self.token_s(running) + Z99 * math.sqrt(spread * self._per_output)

    @cached_property
    def service_s(self) -> float:
        """Mean seconds that a request holds its slot while all slots are taken."""
        return self.iterations * self.token_s(self.slots)

    @property
    def rate_per_s(self) -> float:
        """Requests per second that an instance serves with all slots taken: mu."""
        # 1,000 prompt and 200 output tokens on a100-llama70b with 16 slots: 200 iterations of 8 ms
        # of weights, 16 x 0.087 ms of KV entries and 0.64 ms of prefills, 10.04 ms; 2.01 s a
        # request, so 7.97 requests/s.
        return self.slots / self.service_s

    @cached_property
    def scv(self) -> float:
        """Squared coefficient of variation of the service time, taken from the iterations."""
        # Equal lengths give a difference slightly below 0.
        return max(0.0, self.requests.mean(self.requests.iterations**2) / self.iterations**2 - 1)

    def running_p99(self, rate_per_s: float) -> float:
        """Return the 99th percentile of running sequences at a rate, as if Poisson."""
        # n = rate * iterations * t, and t = W + n * each + rate * t * extra.
        added = rate_per_s * (self.iterations * self._each_s + self._extra_s[0])
        # At this rate sequences and prefills alone take a second per second or more: all slots fill
        # up.
        if added >= 1:
            return float(self.slots)
        mean = rate_per_s * self.iterations * self._weights_s / (1 - added)
        # There tokens take longer than the weights, and more so the more sequences run.
        if self._dense_s(mean) > self._weights_s:
            return float(self.slots)
        return min(float(self.slots), mean + Z99 * math.sqrt(mean))

    def alone_late(self, limit_s: float) -> float:
        """Return the share of requests whose TTFT exceeds limit_s even on an idle instance."""
        alone = self._weights_s + self.requests.own_s + self.profile.overhead_s
        return self.requests.mean((alone > limit_s).astype(np.float64))


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedPool:
    """A pool of `instances`, together under `rate_per_s` requests per second."""

    model: PoolModel
    instances: int
    rate_per_s: float

    @property
    def utilisation(self) -> float:
        """Load over capacity of the slots; from 1 on, queues grow without bound."""
        return self.rate_per_s / self.model.rate_per_s / self.instances

    @cached_property
    def running_p99(self) -> float:
        """99th percentile of the sequences that an instance runs."""
        return self.model.running_p99(self.rate_per_s / self.instances)

    @property
    def tpot_p99_s(self) -> float:
        """The 99th percentile of the mean time between the tokens of a request."""
        return self.model.tpot_p99_s(self.running_p99)

    @cached_property
    def ttft_p99_s(self) -> float:
        """The 99th percentile of the time to first token, within 1 %; infinite if overloaded."""
        if any(math.isinf(wait.mean_s) for wait in self._waits):
            return math.inf
        # late() falls with its limit but has no closed inverse, since every request has its own
        # prefill: double an upper bound, then bisect.
        low, high = 0.0, self.model.token_s(0) + self.model.profile.overhead_s
        while self.late(high) > 1 - SHARE:
            high *= 2
        while high - low > 0.005 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if self.late(middle) > 1 - SHARE else (low, middle)
        return high

    def late(self, limit_s: float) -> float:
        """Return the share of requests whose TTFT exceeds limit_s."""
        slot, prefill = self._waits
        if math.isinf(slot.mean_s + prefill.mean_s):  # overloaded
            return 1.0
        return self.model.requests.mean(_tail(slot, prefill, limit_s - self._unqueued_s))

    @cached_property
    def _unqueued_s(self) -> Floats:
        """TTFT of each request without queueing."""
        requests, model = self.model.requests, self.model
        own = requests.own_s + requests.steps * model.sequences_s(self.running_p99)
        # An arrival during an iteration waits for its end, at most the whole iteration; with
        # asynchronous scheduling for that of the next one too.
        iterations = 1 + model.profile.async_scheduling
        waited = iterations * model.token_s(self.running_p99)
        return own + waited + model.profile.overhead_s

    @cached_property
    def _waits(self) -> tuple["_QueueWait", "_QueueWait"]:
        """The wait for a slot of any instance, and for earlier prefills in the own instance."""
        model, requests = self.model, self.model.requests
        slots = Queue(
            servers=self.instances * model.slots,
            rate_per_s=self.rate_per_s,
            service_s=model.service_s,
            scv=model.scv,
        )
        times = requests.flow_s + requests.flow_steps * model.sequences_s(self.running_p99)
        mean = requests.mean(times)
        prefill = Queue(
            servers=1,
            rate_per_s=self.rate_per_s / self.instances,
            service_s=mean,
            scv=max(0.0, requests.mean(times**2) / mean**2 - 1),
        )
        return _wait(slots), _wait(prefill)


@dataclass(frozen=True, slots=True)
class _QueueWait:
    """The share of arrivals that wait, and their mean wait in seconds."""

    share: float
    mean_s: float


def _wait(queue: Queue) -> _QueueWait:
    return _QueueWait(erlang_c(queue.servers, queue.load), wait_of_waiting_s(queue))


def _tail(first: _QueueWait, second: _QueueWait, left_s: Floats) -> Floats:
    """Return the probability that two exponential waits in sequence exceed `left_s` seconds."""
    p, q = first.share, second.share
    # Two equal means would divide by zero.
    a, b = first.mean_s, second.mean_s * (1 + 1e-6 * (first.mean_s == second.mean_s))
    left = np.maximum(left_s, 0.0)
    one, other = np.exp(-left / a), np.exp(-left / b)
    # Only the first wait, only the second, or both; the sum of two exponentials of means a and b
    # exceeds x with probability (a exp(-x / a) - b exp(-x / b)) / (a - b).
    tail = p * (1 - q) * one + (1 - p) * q * other + p * q * (a * one - b * other) / (a - b)
    # Below 0 the request is late without any wait.
    return np.where(left_s < 0, 1.0, tail)
