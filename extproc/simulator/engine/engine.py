"""One inference instance as an event model: vLLM's schedule at the speed of a Profile.

Invariant: no I/O, no clock, no randomness; time is an integer of nanoseconds that the caller moves
with `advance`. The rules are those of vLLM 0.32 (v1/core/sched/scheduler.py and
v1/core/kv_cache_manager.py) with its default settings:

- An iteration schedules the running sequences in the order of their admission, one token for each
  that decodes, then the next chunk of an unfinished prefill, within max_num_batched_tokens.
- If there is no free block for a running sequence, the last admitted one is preempted, possibly
  itself. It loses its blocks and its computed tokens and goes to the front of the waiting queue;
  what it generated becomes part of its next prefill. An iteration that preempts admits none.
- Then waiting sequences are admitted, first come first served, while there are a slot, budget, and
  free blocks for all tokens that the sequence has so far (scheduler_reserve_full_isl). Blocks are
  allocated chunk by chunk. The watermark is 0, vLLM's default.
- The last sampled token has no KV entry until the next iteration, so a sequence that ends with
  p prompt and g generated tokens occupies at most p + g - 1 entries.

The model relies on two invariants that follow: running and waiting sequences together stay in the
order of submission, so the oldest always makes progress; and between iterations at most one
prefill is unfinished, that of the last admitted sequence, unless long_prefill_token_threshold is
set.

With long_prefill_token_threshold a prefill computes at most so many tokens in an iteration, so that
prompts behind it start in the same one. vLLM 0.32 applies it while there is more than one sequence,
and bounds the prefills under way by nothing else (max_num_partial_prefills is no option any more).
Several may be unfinished; each takes its chunk at its place among the running sequences, and those
behind the one that uses up max_num_batched_tokens do nothing in that iteration.

With async_scheduling (step_with_batch_queue of v1/engine/core.py) an iteration is scheduled and its
launch begins as soon as the one before it starts:

- A sequence that arrives, or a slot and the blocks that fall free, during iteration i are seen by
  iteration i + 2. One that ends leaves i + 1 out, as its limit is known (max_tokens).
- The launch of a prefill (Profile.launch_ms) overlaps with the iteration before; the iteration ends
  once it has been launched and computed.

Prefix caching is off by default; see prefix.py for its granularity. Not modelled: priorities,
speculative decoding, LoRA, encoders, KV connectors, and the token too many that asynchronous
scheduling computes for a sequence that stops before its limit.
Compared with vLLM 0.32: of 80 simultaneous sequences with 20 to 400 prompt tokens and as many
output tokens, on 99 blocks of 32 tokens, both preempt 62.
"""

import heapq
import math
from collections import deque

from extproc.simulator.engine.instance import EngineConfig, Profile
from extproc.simulator.engine.prefix import PART_TOKENS, PrefixCache
from extproc.simulator.engine.sequence import Event, EventKind, NeverFitsError, Sequence, State


class Engine:
    """The schedule of one instance: submit sequences, advance the time, read events, abort.

    A decoding sequence gains one token per iteration from the end of its prefill on. So its
    progress is the difference of two counters, it needs a new block every block_size iterations,
    and consecutive iterations that only decode are computed at once: the cost of advance() grows
    with the number of events, not of tokens.
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
        self._prefills: list[Sequence] = []  # those of _running that are unfinished, oldest first
        self._prefilled: list[Sequence] = []  # the prefills that the current iteration completes
        self._ends: list[
            tuple[int, int, Sequence]
        ] = []  # heap; keeps entries of preempted sequences
        self._growth = [0] * config.block_size  # decodes that need a block, by iteration mod size
        self._read = 0  # KV entries of the decoding sequences; each iteration reads all of them
        self._pairs = 0.0  # of attention in the prefills of the current iteration
        self._stalled: list[Sequence] = []  # running, but without tokens in the current iteration
        self._most_tokens = config.max_num_batched_tokens  # of a prefill in the current iteration
        self._kv_ns = profile.kv_token_ns
        self._launch_ns = profile.launch_ns
        self._decode_ns = [profile.iteration_ns(n, 0) for n in range(config.max_num_seqs + 1)]
        self._events: list[Event] = []
        self._cache = PrefixCache(config.block_size) if config.enable_prefix_caching else None
        self._clock_ns = 0  # the caller's: now_ns may be the end of an iteration under way
        self._decided_ns = 0  # when the next iteration was scheduled, if others ran then
        # Finished sequences whose slots and blocks the next iteration still lacks, with the KV
        # entries of each; always empty without async_scheduling.
        self._held: list[tuple[Sequence, int]] = []

    @property
    def running(self) -> int:
        """Sequences that have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences in the queue, including preempted ones."""
        return len(self._waiting)

    @property
    def usage(self) -> float:
        """The share of the KV cache that is in use, 0 to 1."""
        return 1.0 - self.free_blocks / self.config.num_blocks

    def generated(self, sequence: Sequence) -> int:
        """Count the output tokens that the sequence has at now_ns."""
        if sequence.end < 0:
            return sequence.produced
        # It gains a token per iteration, so as many are missing as iterations are left until its
        # end.
        return sequence.output_tokens - (sequence.end - self._iterations)

    def submit(self, sequence: Sequence) -> None:
        """Queue a new sequence; the next iteration may admit it.

        Raises NeverFitsError if the prompt fills the window or the sequence exceeds the whole KV
        cache, ValueError if it was already submitted.
        """
        if sequence.state is not State.NEW:
            raise ValueError("the sequence was already submitted")
        room = self.config.max_model_len - sequence.prompt_tokens
        if room < 1:
            raise NeverFitsError(f"{sequence.prompt_tokens} prompt tokens fill the window")
        sequence.output_tokens = min(sequence.output_tokens, room)
        kept = sequence.prompt_tokens + sequence.output_tokens - 1
        if self._blocks(kept) > self.config.num_blocks:
            raise NeverFitsError(f"{kept} tokens exceed the KV cache")
        self._submitted += 1
        sequence.submitted_ns = self._clock_ns
        sequence.serial = self._submitted
        sequence.state = State.WAITING
        self._waiting.append(sequence)

    def abort(self, sequence: Sequence) -> bool:
        """Remove a sequence and free its blocks; return False unless it is waiting or running."""
        if sequence.state is State.WAITING:
            self._waiting.remove(sequence)
        elif sequence.state is State.RUNNING:
            self._running.remove(sequence)
            self._release(sequence)
            if not self._running:
                self._release_held()
        else:
            return False
        sequence.state = State.OVER
        return True

    def earliest_end_ns(self) -> int | None:
        """Return a time before which no sequence ends, unless more are submitted.

        None if the engine is idle. It is a lower bound: after advancing to it, ask again.
        """
        if not self._running and not self._waiting:
            return None
        if count := self._decode_only(None):
            return self.now_ns + self._decoding_ns(count)
        return self.now_ns + 1

    def advance(self, until_ns: int | None = None) -> list[Event]:
        """Run every iteration that starts before until_ns (None: until idle); return the events.

        The last iteration may end after until_ns; now_ns is then its end. A caller that advances
        to each arrival before it submits models a scheduler that reads its queue between
        iterations.
        """
        while (self._running or self._waiting) and (until_ns is None or self.now_ns < until_ns):
            count = self._decode_only(until_ns)
            if count:
                self._decode(count)
            else:
                self._iterate()
        if until_ns is not None and self.now_ns < until_ns:
            self.now_ns = until_ns
        self._clock_ns = self.now_ns if until_ns is None else until_ns
        events, self._events = self._events, []
        return events

    def _decode_only(self, until_ns: int | None) -> int:
        """Count the next iterations that only decode; 0 if a prefill or preemption comes first.

        The number of free blocks only falls during them, so a sequence that cannot be admitted now
        cannot be admitted later in the run either.
        """
        if self._prefills or self._admissible():
            return 0
        # What is not seen yet may be admitted by the iteration after the next.
        unseen = self._held or self._unseen()
        count = 1 if unseen else self._next_end() - self._iterations
        if until_ns is not None:
            count = min(count, self._iterations_until(until_ns))
        # No sequence needs more than count // size + 1 blocks: while those are free, none need be
        # counted.
        if (count // self.config.block_size + 1) * len(self._running) > self.free_blocks:
            count = min(count, self._iterations_within(self.free_blocks))
        return count

    def _iterations_until(self, until_ns: int) -> int:
        """Count the decoding iterations that start before until_ns, which is after now_ns."""
        gap_ns = until_ns - self.now_ns
        growth_ns = self._kv_ns * len(self._running)
        if not growth_ns:
            return -(-gap_ns // self._decode_ns[len(self._running)])
        # An iteration lasts longer than the one before by the entry that each sequence has gained,
        # so the time is quadratic in count. In integers: linear**2 exceeds the 53 bits of a float
        # from 47 ms an iteration on.
        # The root of _decoding_ns(count) = gap_ns, rounded up.
        linear = 2 * (self._decode_ns[len(self._running)] + self._kv_ns * self._read) - growth_ns
        count = (math.isqrt(linear**2 + 8 * growth_ns * gap_ns) - linear) // (2 * growth_ns)
        while self._decoding_ns(count) < gap_ns:
            count += 1
        return count

    def _decoding_ns(self, count: int) -> int:
        """Return the nanoseconds of the next `count` iterations if they only decode."""
        decodes = len(self._running)
        read = self._read * count + decodes * count * (count - 1) // 2
        return count * self._decode_ns[decodes] + self._kv_ns * read

    def _iterations_within(self, blocks: int) -> int:
        """Count the decoding iterations for which `blocks` free blocks suffice."""
        size = self.config.block_size
        # In block_size iterations every sequence needs exactly one block, whatever its phase.
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
        self._decided_ns = self.now_ns + self._decoding_ns(count - 1)
        self.now_ns += self._decoding_ns(count)
        self._read += count * len(self._running)
        self._release_held()
        self._finish()

    def _iterate(self) -> None:
        """Run one iteration of any kind, in the order of vLLM's Scheduler.schedule."""
        if not self._running:
            self._decided_ns = self.now_ns
        preemptions = self.preemptions
        if self.config.long_prefill_token_threshold:
            self._limit_prefills()
        if self._prefills and self.config.long_prefill_token_threshold:
            decodes, tokens = self._schedule_in_order()
        else:
            self._grow_decodes()
            decodes = len(self._running) - len(self._prefills)
            budget = self.config.max_num_batched_tokens - decodes
            tokens = self._compute(self._prefills[0], budget) if self._prefills else 0
        if self.preemptions == preemptions:
            tokens += self._admit(self.config.max_num_batched_tokens - decodes - tokens)
        # Sequences that this iteration prefills are read from the next one on.
        computed_ns = self._kv_ns * (self._read - self._stall())
        self._iterations += 1
        scheduled = len(self._running) - len(self._stalled)
        computed_ns += self.profile.iteration_ns(scheduled, tokens, self._pairs)
        self._stalled.clear()
        self._pass(computed_ns, self._launch_ns if tokens else 0)
        self._read += decodes
        self._pairs = 0.0
        self._release_held()
        self._begin_decodes()
        self._finish()

    def _pass(self, computed_ns: int, launch_ns: int) -> None:
        """Move the time past an iteration."""
        # The next one is scheduled once this one is launched.
        self._decided_ns = self.now_ns + launch_ns
        self.now_ns += max(computed_ns, launch_ns)

    def _grow_decodes(self) -> None:
        """Allocate a block to each decoding sequence that needs a new one, oldest first."""
        needed = self._growth[self._iterations % self.config.block_size]
        if needed <= self.free_blocks:
            self.free_blocks -= needed
            return
        for sequence in self._running:  # preemption removes its tail meanwhile
            if sequence.end >= 0 and not self._grow_decode(sequence):
                return

    def _grow_decode(self, sequence: Sequence) -> bool:
        """Allocate a block to a decoding sequence if it needs one; False if it was preempted."""
        if self._kept(sequence) % self.config.block_size == 0:
            if not self._make_room(1, sequence):
                return False
            self.free_blocks -= 1
        return True

    def _make_room(self, blocks: int, sequence: Sequence) -> bool:
        """Preempt until so many blocks are free; False if `sequence` itself was preempted."""
        while self.free_blocks < blocks:
            if self._preempt() is sequence:
                return False
        return True

    def _limit_prefills(self) -> None:
        """Set the most tokens of a prefill in this iteration: no limit for one that is alone."""
        config = self.config
        waiting = 0 if self._unseen() else len(self._waiting)
        several = len(self._running) + len(self._held) + waiting > 1
        self._most_tokens = (
            config.long_prefill_token_threshold if several else config.max_num_batched_tokens
        )

    def _schedule_in_order(self) -> tuple[int, int]:
        """Give every running sequence its tokens, oldest first, while there is budget.

        Return the number of those that decode, and the tokens of the others.
        """
        budget, decodes, tokens, index = self.config.max_num_batched_tokens, 0, 0, 0
        while budget and index < len(self._running):
            sequence = self._running[index]
            if sequence.end < 0:
                chunk = self._compute(sequence, budget)
                if not chunk:
                    break
                tokens, budget = tokens + chunk, budget - chunk
            elif self._grow_decode(sequence):
                decodes, budget = decodes + 1, budget - 1
            else:
                break
            index += 1
        self._stalled = self._running[index:]
        return decodes, tokens

    def _stall(self) -> int:
        """Delay the decoding sequences that got no token; return their KV entries."""
        entries = 0
        for sequence in self._stalled:
            if sequence.end < 0:
                continue
            entries += self._kept(sequence)
            phase = self._phase(sequence)
            self._growth[phase] -= 1
            self._growth[(phase + 1) % self.config.block_size] += 1
            sequence.end += 1
            heapq.heappush(self._ends, (sequence.end, sequence.serial, sequence))
        return entries

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
        """Return whether there are a slot and blocks for all tokens of the queue's head."""
        slots = self.config.max_num_seqs - len(self._held)
        if not self._waiting or len(self._running) >= slots or self._unseen():
            return False
        # vLLM does not look behind the head either: a long prompt that lacks blocks holds up
        # shorter ones, and in return never starves.
        head = self._waiting[0]
        needed = self._blocks(head.prompt_tokens + head.produced)
        if self._cache is not None and needed > self.free_blocks:
            self._cache.trim(self.free_blocks)
            # Blocks of idle parts count as free already, those of held parts do not.
            needed -= self._cache.held_blocks(head)
        return needed <= self.free_blocks

    def _unseen(self) -> bool:
        """Return whether the queue's head arrived after the next iteration was scheduled."""
        if not self.config.async_scheduling or not self._waiting or not self._running:
            return False
        return self._waiting[0].submitted_ns > self._decided_ns

    def _admit(self, budget: int) -> int:
        """Start prefills within a budget of tokens; return the number of tokens they compute."""
        tokens = 0
        while tokens < budget and self._admissible():
            sequence = self._waiting.popleft()
            sequence.state = State.RUNNING
            sequence.computed = 0
            if self._cache is not None:
                self._reuse(sequence, self._cache)
            self._running.append(sequence)
            self._prefills.append(sequence)
            self._events.append(Event(self.now_ns, EventKind.ADMITTED, sequence))
            tokens += self._compute(sequence, budget - tokens)
        return tokens

    def _reuse(self, sequence: Sequence, cache: PrefixCache) -> None:
        """Start a prefill after the cached prefix of its prompt."""
        cache.trim(self.free_blocks)
        self.free_blocks -= cache.take(sequence)
        sequence.computed = sequence.reused = PART_TOKENS * sequence.shared

    def _compute(self, sequence: Sequence, budget: int) -> int:
        """Compute the next chunk of an unfinished prefill; 0 if it was preempted for its blocks."""
        known = sequence.prompt_tokens + sequence.produced
        computed = min(known, sequence.computed + min(budget, self._most_tokens))
        blocks = self._blocks(computed) - self._blocks(sequence.computed)
        if not self._make_room(blocks, sequence):
            return 0
        self.free_blocks -= blocks
        chunk = computed - sequence.computed
        self._pairs += chunk * (computed + sequence.computed) / 2
        sequence.computed = computed
        if self._cache is not None:
            self._cache.trim(self.free_blocks)
            self._cache.add(sequence, computed)
        if computed == known:
            self._prefills.remove(sequence)
            self._prefilled.append(sequence)
        return chunk

    def _begin_decodes(self) -> None:
        """Give the next token to each sequence whose prefill the iteration has completed."""
        read_ns = self._read_ns()
        for sequence in self._prefilled:
            sequence.produced += 1
            sequence.end = self._iterations + sequence.output_tokens - sequence.produced
            self._growth[self._phase(sequence)] += 1
            self._read += self._kept(sequence)
            # After a preemption a sequence ends later than before, so no two entries are equal.
            heapq.heappush(self._ends, (sequence.end, sequence.serial, sequence))
            if sequence.produced == 1:
                self._events.append(Event(read_ns, EventKind.FIRST_TOKEN, sequence))
        self._prefilled.clear()

    def _next_end(self) -> int:
        """Return the count of iterations at which the next decoding sequence ends."""
        # A heap cannot remove the entry of a preempted sequence: skip an entry that is no longer
        # its sequence's end.
        while self._ends[0][0] != self._ends[0][2].end:
            heapq.heappop(self._ends)
        return self._ends[0][0]

    def _finish(self) -> None:
        """Finish the sequences that have all their tokens, oldest first."""
        read_ns = self._read_ns()
        while self._ends and self._ends[0][0] <= self._iterations:
            end, _, sequence = heapq.heappop(self._ends)
            if sequence.end == end:
                self._running.remove(sequence)
                self._held.append((sequence, self._kept(sequence)))
                self._stop(sequence)
                sequence.state = State.OVER
                self._events.append(Event(read_ns, EventKind.FINISHED, sequence))
        # Without a next iteration under way, the scheduler reads the answers first.
        if not self.config.async_scheduling or not self._running:
            self._release_held()

    def _read_ns(self) -> int:
        """Return when the scheduler reads the tokens of the iteration that ends now."""
        if not (self.config.async_scheduling and self._running and self._launch_ns):
            return self.now_ns
        prefills = bool(self._prefills) or self._admissible()
        return self.now_ns + self._launch_ns * prefills

    def _release_held(self) -> None:
        for sequence, kept in self._held:
            self._free(sequence, kept)
        self._held.clear()

    def _release(self, sequence: Sequence) -> None:
        """Free the blocks of a running sequence and store its progress."""
        self._free(sequence, self._kept(sequence))
        self._stop(sequence)

    def _free(self, sequence: Sequence, kept: int) -> None:
        freed = self._blocks(kept)
        if self._cache is not None:
            self._cache.trim(self.free_blocks)
            # Blocks of parts that other sequences still hold stay taken.
            freed -= self._cache.release(sequence)
        self.free_blocks += freed

    def _stop(self, sequence: Sequence) -> None:
        if sequence.end < 0:
            self._prefills.remove(sequence)
            return
        self._growth[self._phase(sequence)] -= 1
        self._read -= self._kept(sequence)
        sequence.produced = self.generated(sequence)
        sequence.end = -1

    def _kept(self, sequence: Sequence) -> int:
        """Count its tokens that have a KV entry: during decoding all but the last sampled one."""
        if sequence.end < 0:
            return sequence.computed
        return sequence.prompt_tokens + self.generated(sequence) - 1

    def _phase(self, sequence: Sequence) -> int:
        """Return the iterations, modulo block_size, in which a decoding sequence needs a block."""
        # A prompt of 30 tokens, prefilled in iteration 0, fills its two blocks of 16 by iteration 2
        # and takes its third in iteration 3: (1 - 30) mod 16 = 3, then in 19, 35 ...
        return (self._iterations - self._kept(sequence)) % self.config.block_size

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.config.block_size)
