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

Left out: prefix caching, priorities, speculative decoding, LoRA, encoders, KV connectors, and
asynchronous scheduling (vLLM may compute one token too many for a sequence that has stopped).
Beside vLLM 0.32 itself, with 99 blocks of 32 and 80 sequences of 20 to 400 prompt and as many
output tokens at once, both preempt 62 times.
"""

import enum
import heapq
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

NS_PER_MS = 1_000_000


class NeverFitsError(ValueError):
    """The sequence is longer than the window or the whole KV cache, so no schedule can hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How long one iteration takes on an accelerator.

    An iteration with n sequences lasts `(weights_ms * c + sequence_ms * n) / speed`, where c is 1,
    or, when it prefills more than chunk_tokens tokens, the number of chunks of that size: each
    chunk reads the weights once, and the first shares that with the decoding sequences.
    """

    weights_ms: float
    sequence_ms: float
    chunk_tokens: int
    speed: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what has no duration."""
        if self.chunk_tokens < 1 or self.speed <= 0:
            raise ValueError("chunk_tokens must be at least 1 and speed above 0")

    def iteration_ns(self, sequences: int, prefill_tokens: int) -> int:
        """Return the nanoseconds of an iteration that prefills so many tokens, 0 or more."""
        chunks = max(1, -(-prefill_tokens // self.chunk_tokens))
        ms = (self.weights_ms * chunks + self.sequence_ms * sequences) / self.speed
        return max(1, round(ms * NS_PER_MS))


# arXiv 2603.16514: Llama-3-70B in BF16 on eight A100-80GB.
A100_80GB = Profile(weights_ms=8.0, sequence_ms=0.65, chunk_tokens=512)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The settings of an instance that decide its schedule; the names are vLLM's.

    num_blocks counts usable blocks: vLLM's num_gpu_blocks less the null block that it never gives.
    Raises ValueError where vLLM would not start.
    """

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    num_blocks: int
    block_size: int = 16

    def __post_init__(self) -> None:
        """Refuse what vLLM refuses at start-up."""
        if min(self.max_model_len, self.max_num_seqs, self.num_blocks, self.block_size) < 1:
            raise ValueError("all sizes of an engine must be at least 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError("max_num_batched_tokens must be at least max_num_seqs")


class Kind(enum.Enum):
    """What happened to a sequence."""

    ADMITTED = "admitted"  # its prefill begins, for the first time or again
    PREEMPTED = "preempted"  # its blocks are gone; it waits at the front of the queue
    FIRST_TOKEN = "first_token"  # noqa: S105 (not a password)
    FINISHED = "finished"  # all of its output tokens are there


class _State(enum.Enum):
    NEW = enum.auto()
    WAITING = enum.auto()
    RUNNING = enum.auto()
    OVER = enum.auto()


class Sequence:
    """One prompt and the answer that it will get; the caller keeps it to know it in the events.

    Both counts must be at least 1. submit() cuts output_tokens to what the window holds, as vLLM
    ends a sequence that has max_model_len tokens. The rest is the engine's notes.
    """

    __slots__ = (
        "computed",  # tokens with a KV entry, while it prefills
        "end",  # the iteration before which its last token is there; -1 unless it decodes
        "output_tokens",
        "produced",  # output tokens so far, unless it decodes: see Engine.generated
        "prompt_tokens",
        "serial",  # order of submission
        "state",
    )

    def __init__(self, prompt_tokens: int, output_tokens: int) -> None:
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError("a sequence has at least one prompt token and one output token")
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.state = _State.NEW
        self.computed = self.produced = self.serial = 0
        self.end = -1


class Event(NamedTuple):
    """Something that happened at a time in nanoseconds; events come in the order of time."""

    at_ns: int
    kind: Kind
    sequence: Sequence


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
        self._decode_ns = [profile.iteration_ns(n, 0) for n in range(config.max_num_seqs + 1)]
        self._events: list[Event] = []

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
        if sequence.state is not _State.NEW:
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
        sequence.state = _State.WAITING
        self._waiting.append(sequence)

    def abort(self, sequence: Sequence) -> bool:
        """Drop a sequence and free what it holds; False where it is not waiting or running."""
        if sequence.state is _State.WAITING:
            self._waiting.remove(sequence)
        elif sequence.state is _State.RUNNING:
            self._running.remove(sequence)
            self._release(sequence)
        else:
            return False
        sequence.state = _State.OVER
        return True

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
            count = min(count, -((self.now_ns - until_ns) // self._decode_ns[len(self._running)]))
        if (count // self.config.block_size + 1) * len(self._running) > self.free_blocks:
            count = min(count, self._iterations_within(self.free_blocks))
        return count

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
        self.now_ns += count * self._decode_ns[len(self._running)]
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
        self.now_ns += self.profile.iteration_ns(len(self._running), tokens)
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
        victim.state = _State.WAITING
        self._waiting.appendleft(victim)
        self.preemptions += 1
        self._events.append(Event(self.now_ns, Kind.PREEMPTED, victim))
        return victim

    def _admissible(self) -> bool:
        """Tell whether the head of the queue has a slot and blocks for all its tokens."""
        if not self._waiting or len(self._running) == self.config.max_num_seqs:
            return False
        head = self._waiting[0]
        return self._blocks(head.prompt_tokens + head.produced) <= self.free_blocks

    def _admit(self, budget: int) -> int:
        """Begin prefills within a budget of tokens; returns the tokens that they compute."""
        tokens = 0
        while tokens < budget and self._admissible():
            sequence = self._waiting.popleft()
            sequence.state = _State.RUNNING
            sequence.computed = 0
            self._running.append(sequence)
            self._prefill = sequence
            self._events.append(Event(self.now_ns, Kind.ADMITTED, sequence))
            tokens += self._compute(sequence, budget - tokens)
        return tokens

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
        sequence.computed = computed
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
            # A sequence that decodes again ends later than before: no two entries are equal.
            heapq.heappush(self._ends, (sequence.end, sequence.serial, sequence))
            if sequence.produced == 1:
                self._events.append(Event(self.now_ns, Kind.FIRST_TOKEN, sequence))
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
                sequence.state = _State.OVER
                self._events.append(Event(self.now_ns, Kind.FINISHED, sequence))

    def _release(self, sequence: Sequence) -> None:
        """Take the blocks of a running sequence and note how far it came."""
        self.free_blocks += self._blocks(self._kept(sequence))
        if sequence is self._prefill:
            self._prefill = None
            return
        self._growth[self._phase(sequence)] -= 1
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
