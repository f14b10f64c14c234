"""The scheduler of vLLM 0.32, transcribed: one iteration per step, blocks counted by sequence."""

from extproc.simulator.engine import (
    EngineConfig,
    Event,
    EventKind,
    NeverFitsError,
    Profile,
    Sequence,
)


class Reference:
    """Scheduler.schedule and update_from_output of vLLM 0.32; has the interface of Engine."""

    def __init__(self, settings: EngineConfig, profile: Profile) -> None:
        self.config, self.profile = settings, profile
        self.now_ns, self.events = 0, list[Event]()
        self.running, self.waiting = list[Sequence](), list[Sequence]()
        self.decoding = set[Sequence]()
        self.blocks, self.computed, self.output = {}, {}, {}  # by sequence

    def submit(self, sequence: Sequence) -> None:
        room = self.config.max_model_len - sequence.prompt_tokens
        output = min(sequence.output_tokens, room)
        slots = self.config.num_blocks * self.config.block_size
        if room < 1 or sequence.prompt_tokens + output - 1 > slots:
            raise NeverFitsError
        self.blocks[sequence] = self.computed[sequence] = self.output[sequence] = 0
        self.waiting.append(sequence)

    def abort(self, sequence: Sequence) -> bool:
        active = sequence in self.running + self.waiting
        if active:
            (self.running if sequence in self.running else self.waiting).remove(sequence)
            self.blocks[sequence] = 0
        return active

    def advance(self, until_ns: int) -> list[Event]:
        while (self.running or self.waiting) and self.now_ns < until_ns:
            self.step()
        self.now_ns = max(self.now_ns, until_ns)
        events, self.events = self.events, []
        return events

    def allocate(self, sequence: Sequence, tokens: int, *, whole: bool = False) -> bool:
        def missing(slots: int) -> int:
            return -(-slots // self.config.block_size) - self.blocks[sequence]

        free = self.config.num_blocks - sum(self.blocks.values())
        known = sequence.prompt_tokens + self.output[sequence]
        if (whole and missing(known) > free) or missing(self.computed[sequence] + tokens) > free:
            return False
        self.blocks[sequence] += max(0, missing(self.computed[sequence] + tokens))
        return True

    def preempt(self) -> Sequence:
        victim = self.running.pop()
        self.decoding.discard(victim)
        self.blocks[victim] = self.computed[victim] = 0
        self.waiting.insert(0, victim)
        self.events.append(Event(self.now_ns, EventKind.PREEMPTED, victim))
        return victim

    def left(self, sequence: Sequence) -> int:
        return sequence.prompt_tokens + self.output[sequence] - self.computed[sequence]

    def schedule(self) -> dict[Sequence, int]:
        budget, scheduled, preempted, index = self.config.max_num_batched_tokens, {}, False, 0
        several = len(self.running) + len(self.waiting) > 1
        most = (several and self.config.long_prefill_token_threshold) or budget
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            tokens = min(self.left(sequence), most, budget)
            while not (fits := self.allocate(sequence, tokens)):
                preempted = True
                if self.preempt() is sequence:
                    break
            if not fits:
                break
            scheduled[sequence] = tokens
            budget -= tokens
            index += 1
        while self.waiting and not preempted and budget > 0:
            sequence = self.waiting[0]
            tokens = min(self.left(sequence), most, budget)
            if len(self.running) == self.config.max_num_seqs:
                break
            if not self.allocate(sequence, tokens, whole=True):
                break
            self.running.append(self.waiting.pop(0))
            self.events.append(Event(self.now_ns, EventKind.ADMITTED, sequence))
            scheduled[sequence] = tokens
            budget -= tokens
        return scheduled

    def step(self) -> None:
        scheduled = self.schedule()
        prefills = {s: tokens for s, tokens in scheduled.items() if s not in self.decoding}
        pairs = sum(n * (2 * self.computed[s] + n) / 2 for s, n in prefills.items())
        read = sum(self.computed[s] for s in scheduled if s in self.decoding)
        self.now_ns += self.profile.iteration_ns(len(scheduled), sum(prefills.values()), pairs)
        self.now_ns += self.profile.kv_token_ns * read
        ended = list[Sequence]()
        for sequence, tokens in scheduled.items():
            self.computed[sequence] += tokens
            if self.left(sequence) == 0:
                self.decoding.add(sequence)
                self.output[sequence] += 1
                if self.output[sequence] == 1:
                    self.events.append(Event(self.now_ns, EventKind.FIRST_TOKEN, sequence))
                total = sequence.prompt_tokens + self.output[sequence]
                if (
                    self.output[sequence] == sequence.output_tokens
                    or total == self.config.max_model_len
                ):
                    ended.append(sequence)
        for sequence in ended:
            self.running.remove(sequence)
            self.blocks[sequence] = 0
            self.events.append(Event(self.now_ns, EventKind.FINISHED, sequence))
