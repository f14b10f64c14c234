"""One inference instance as an event model: vLLM's schedule at the pace of a Profile.

The one rule: no I/O, no clock and no randomness of its own; time is an integer of nanoseconds that
the caller moves with `advance`. The rules are those of vLLM 0.32 (v1/core/sched/scheduler.py and
v1/core/kv_cache_manager.py) with its default settings:

- An iteration schedules the running sequences in the order of their admission, one token for each
  that decodes, then the next chunk of a prefill under way, within max_num_batched_tokens.
- A running sequence that finds no free block preempts the last admitted one, itself included. The
  victim loses its blocks and its computed tokens and goes to the front of the waiting queue; what
  it generated becomes part of its next prefill. An iteration that preempts admits nobody.
- Then waiting sequences are admitted, first come first served, while a slot, tokens of the budget
  and free blocks for all the tokens that the sequence has are there (scheduler_reserve_full_isl).
  The blocks are taken chunk by chunk. The watermark is 0, which is vLLM's default.
- The token sampled last has no KV entry until the next iteration, so a sequence that ends with
  p prompt and g generated tokens occupies p + g - 1 of them at most.

Two invariants follow, and the model rests on them: running and waiting sequences, taken together,
stay in the order of submission, so the oldest always makes progress; and at most one prefill is
unfinished between iterations, that of the last admitted sequence.

Prefix caching is off unless the settings say so; prefix.py has its grain. Left out: priorities,
speculative decoding, LoRA, encoders, KV connectors, and asynchronous scheduling (vLLM may compute
one token too many for a sequence that has stopped).
Beside vLLM 0.32 itself, with 99 blocks of 32 and 80 sequences of 20 to 400 prompt and as many
output tokens at once, both preempt 62 times.
"""

import heapq
import math
from collections import deque

from extproc.simulator.engine.instance import EngineConfig, Profile
from extproc.simulator.engine.prefix import PART_TOKENS, PrefixCache
from extproc.simulator.engine.sequence import Event, EventKind, NeverFitsError, Sequence, State


class Engine:
    """The schedule of one instance: submit, advance, read the events, abort.

    Between iterations every decoding sequence has produced one token per iteration since its
    prefill ended. So its progress is a difference of two counters, the iterations in which it
    needs a block recur every block_size iterations, and iterations that only decode are computed
    together: the cost of advance() grows with the events, not with the tokens.
    """

    def __init__(self, config: EngineConfig, profile: Profile) -> None:
        self.config = config
        self.profile = profile
        self.now_ns = 0  # start of the next iteration, never before the last advance()
        self.free_blocks = config.num_blocks
        self.preemptions = 0
        self._submitted = 0
        self._iterations = 0
        self._running: list[Sequence] = []
        self._waiting: deque[Sequence] = deque()
        self._prefill: Sequence | None = None  # the last of _running, where it is unfinished
        self._prefilled: list[Sequence] = []  # the prefills that the current iteration completes
        self._ends: list[tuple[int, int, Sequence]] = []  # heap; entries of the preempted remain
        self._growth = [0] * config.block_size  # decodes that need a block, by iteration mod size
        self._read = 0  # KV entries of the decoding sequences, all of which an iteration reads
        self._pairs = 0.0  # of tokens that the current iteration prefills and attends to
        self._kv_ns = profile.kv_token_ns
        self._decode_ns = [profile.iteration_ns(n, 0) for n in range(config.max_num_seqs + 1)]
        self._events: list[Event] = []
        self._cache = PrefixCache(config.block_size) if config.enable_prefix_caching else None

    @property
    def running(self) -> int:
        """Sequences that have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences in the queue, preempted ones included."""
        return len(self._waiting)

    @property
    def usage(self) -> float:
        """The share of the KV cache that is occupied, 0 to 1."""
        return 1.0 - self.free_blocks / self.config.num_blocks

    def generated(self, sequence: Sequence) -> int:
        """Count the output tokens that the sequence has at now_ns."""
        if sequence.end < 0:
            return sequence.produced
        return sequence.output_tokens - (sequence.end - self._iterations)

    def submit(self, sequence: Sequence) -> None:
        """Queue a new sequence; the next iteration to start sees it.

        Raises NeverFitsError where the prompt fills the window or the sequence exceeds the whole
        KV cache, ValueError where it was submitted before.
        """
        if sequence.state is not State.NEW:
            raise ValueError("a sequence is submitted once")
        room = self.config.max_model_len - sequence.prompt_tokens
        if room < 1:
            raise NeverFitsError(f"{sequence.prompt_tokens} prompt tokens fill the window")
        sequence.output_tokens = min(sequence.output_tokens, room)
        kept = sequence.prompt_tokens + sequence.output_tokens - 1
        if self._blocks(kept) > self.config.num_blocks:
            raise NeverFitsError(f"{kept} tokens exceed the KV cache")
        self._submitted += 1
        sequence.serial = self._submitted
        sequence.state = State.WAITING
        self._waiting.append(sequence)

    def abort(self, sequence: Sequence) -> bool:
        """Drop a sequence and free what it holds; False where it is not waiting or running."""
        if sequence.state is State.WAITING:
            self._waiting.remove(sequence)
        elif sequence.state is State.RUNNING:
            self._running.remove(sequence)
            self._release(sequence)
        else:
            return False
        sequence.state = State.OVER
        return True

    def earliest_end_ns(self) -> int | None:
        """Return a time before which no sequence ends, unless more are submitted.

        None where there is none. Advancing to it brings the end, or a later answer.
        """
        if not self._running and not self._waiting:
            return None
        if count := self._decode_only(None):
            return self.now_ns + self._decoding_ns(count)
        return self.now_ns + 1

    def advance(self, until_ns: int | None = None) -> list[Event]:
        """Run every iteration that starts before until_ns, or all there is to run.

        The last of them may end later: now_ns says when, and the events say it too. A caller that
        advances to each arrival before it submits gets what a scheduler gets that looks at its
        queue between iterations.
        """
        while (self._running or self._waiting) and (until_ns is None or self.now_ns < until_ns):
            count = self._decode_only(until_ns)
            if count:
                self._decode(count)
            else:
                self._iterate()
        if until_ns is not None and self.now_ns < until_ns:
            self.now_ns = until_ns
        events, self._events = self._events, []
        return events

    def _decode_only(self, until_ns: int | None) -> int:
        """Count the next iterations that only decode: none, where a prefill or preemption is due.

        Free blocks only become fewer meanwhile, so who cannot be admitted now cannot be later.
        """
        if self._prefill is not None or self._admissible():
            return 0
        count = self._next_end() - self._iterations
        if until_ns is not None:
            count = min(count, self._iterations_until(until_ns))
        if (count // self.config.block_size + 1) * len(self._running) > self.free_blocks:
            count = min(count, self._iterations_within(self.free_blocks))
        return count

    def _iterations_until(self, until_ns: int) -> int:
        """Count the decoding iterations that start before until_ns, which is after now_ns."""
        gap_ns = until_ns - self.now_ns
        growth_ns = self._kv_ns * len(self._running)
        if not growth_ns:
            return -(-gap_ns // self._decode_ns[len(self._running)])
        # The root of decoding_ns(count) = gap_ns, and the whole number above it.
        linear = 2 * (self._decode_ns[len(self._running)] + self._kv_ns * self._read) - growth_ns
        count = (math.isqrt(linear**2 + 8 * growth_ns * gap_ns) - linear) // (2 * growth_ns)
        while self._decoding_ns(count) < gap_ns:
            count += 1
        return count

    def _decoding_ns(self, count: int) -> int:
        """Return the nanoseconds of the next `count` iterations, where they only decode."""
        decodes = len(self._running)
        read = self._read * count + decodes * count * (count - 1) // 2
        return count * self._decode_ns[decodes] + self._kv_ns * read

    def _iterations_within(self, blocks: int) -> int:
        """Count the decoding iterations that so many free blocks last."""
        size = self.config.block_size
        cycles, left = divmod(blocks, len(self._running))
        count = cycles * size
        while (need := self._growth[(self._iterations + count) % size]) <= left:
            left -= need
            count += 1
        return count

    def _decode(self, count: int) -> None:
        size = self.config.block_size
        cycles, rest = divmod(count, size)
        self.free_blocks -= cycles * len(self._running)
        for iteration in range(self._iterations, self._iterations + rest):
            self.free_blocks -= self._growth[iteration % size]
        self._iterations += count
        self.now_ns += self._decoding_ns(count)
        self._read += count * len(self._running)
        self._finish()

    def _iterate(self) -> None:
        """Run one iteration of any kind, in the order of vLLM's Scheduler.schedule."""
        preemptions = self.preemptions
        self._grow_decodes()
        decodes = len(self._running) - (self._prefill is not None)
        budget = self.config.max_num_batched_tokens - decodes
        tokens = self._compute(self._prefill, budget) if self._prefill else 0
        if self.preemptions == preemptions:
            tokens += self._admit(budget - tokens)
        self._iterations += 1
        self.now_ns += self.profile.iteration_ns(len(self._running), tokens, self._pairs)
        self.now_ns += self._kv_ns * self._read
        self._read += decodes
        self._pairs = 0.0
        self._begin_decodes()
        self._finish()

    def _grow_decodes(self) -> None:
        """Give a block to each decoding sequence that begins one, the oldest first."""
        needed = self._growth[self._iterations % self.config.block_size]
        if needed <= self.free_blocks:
            self.free_blocks -= needed
            return
        for sequence in self._running:  # which loses its tail meanwhile
            if sequence is not self._prefill and self._kept(sequence) % self.config.block_size == 0:
                if not self.free_blocks and self._preempt() is sequence:
                    return
                self.free_blocks -= 1  # every victim holds one at least

    def _preempt(self) -> Sequence:
        """Send the last admitted sequence back to the front of the queue."""
        victim = self._running.pop()
        self._release(victim)
        victim.state = State.WAITING
        self._waiting.appendleft(victim)
        self.preemptions += 1
        self._events.append(Event(self.now_ns, EventKind.PREEMPTED, victim))
        return victim

    def _admissible(self) -> bool:
        """Tell whether the head of the queue has a slot and blocks for all its tokens."""
        if not self._waiting or len(self._running) == self.config.max_num_seqs:
            return False
        head = self._waiting[0]
        needed = self._blocks(head.prompt_tokens + head.produced)
        if self._cache is not None and needed > self.free_blocks:
            self._cache.trim(self.free_blocks)
            needed -= self._cache.held_blocks(head)
        return needed <= self.free_blocks

    def _admit(self, budget: int) -> int:
        """Begin prefills within a budget of tokens; returns the tokens that they compute."""
        tokens = 0
        while tokens < budget and self._admissible():
            sequence = self._waiting.popleft()
            sequence.state = State.RUNNING
            sequence.computed = 0
            if self._cache is not None:
                self._reuse(sequence, self._cache)
            self._running.append(sequence)
            self._prefill = sequence
            self._events.append(Event(self.now_ns, EventKind.ADMITTED, sequence))
            tokens += self._compute(sequence, budget - tokens)
        return tokens

    def _reuse(self, sequence: Sequence, cache: PrefixCache) -> None:
        """Begin a prefill after what is cached of its prompt."""
        cache.trim(self.free_blocks)
        self.free_blocks -= cache.take(sequence)
        sequence.computed = sequence.reused = PART_TOKENS * sequence.shared

    def _compute(self, sequence: Sequence, budget: int) -> int:
        """Compute the next chunk of the prefill under way; without blocks for it, preempt it."""
        known = sequence.prompt_tokens + sequence.produced
        computed = min(known, sequence.computed + budget)
        blocks = self._blocks(computed) - self._blocks(sequence.computed)
        if blocks > self.free_blocks:
            self._preempt()
            return 0
        self.free_blocks -= blocks
        chunk = computed - sequence.computed
        self._pairs += chunk * (computed + sequence.computed) / 2
        sequence.computed = computed
        if self._cache is not None:
            self._cache.trim(self.free_blocks)
            self._cache.add(sequence, computed)
        if computed == known:
            self._prefill = None
            self._prefilled.append(sequence)
        return chunk

    def _begin_decodes(self) -> None:
        """Give its next token to each sequence whose prefill the iteration has completed."""
        for sequence in self._prefilled:
            sequence.produced += 1
            sequence.end = self._iterations + sequence.output_tokens - sequence.produced
            self._growth[self._phase(sequence)] += 1
            self._read += self._kept(sequence)
            # A sequence that decodes again ends later than before: no two entries are equal.
            heapq.heappush(self._ends, (sequence.end, sequence.serial, sequence))
            if sequence.produced == 1:
                self._events.append(Event(self.now_ns, EventKind.FIRST_TOKEN, sequence))
        self._prefilled.clear()

    def _next_end(self) -> int:
        """Find the iteration before which the first of the decoding sequences ends."""
        while self._ends[0][0] != self._ends[0][2].end:
            heapq.heappop(self._ends)
        return self._ends[0][0]

    def _finish(self) -> None:
        """End the sequences that have all their tokens, the oldest first."""
        while self._ends and self._ends[0][0] <= self._iterations:
            end, _, sequence = heapq.heappop(self._ends)
            if sequence.end == end:
                self._running.remove(sequence)
                self._release(sequence)
                sequence.state = State.OVER
                self._events.append(Event(self.now_ns, EventKind.FINISHED, sequence))

    def _release(self, sequence: Sequence) -> None:
        """Take the blocks of a running sequence and note how far it came."""
        freed = self._blocks(self._kept(sequence))
        if self._cache is not None:
            self._cache.trim(self.free_blocks)
            freed -= self._cache.release(sequence)
        self.free_blocks += freed
        if sequence is self._prefill:
            self._prefill = None
            return
        self._growth[self._phase(sequence)] -= 1
        self._read -= self._kept(sequence)
        sequence.produced = self.generated(sequence)
        sequence.end = -1

    def _kept(self, sequence: Sequence) -> int:
        """Count the tokens that have a KV entry: while it decodes, all but the one sampled last."""
        if sequence is self._prefill:
            return sequence.computed
        return sequence.prompt_tokens + self.generated(sequence) - 1

    def _phase(self, sequence: Sequence) -> int:
        """Tell in which iterations, modulo block_size, a decoding sequence begins a block."""
        return (self._iterations - self._kept(sequence)) % self.config.block_size

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.config.block_size)
