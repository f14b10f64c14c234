"""The prefix cache of an instance: parts of prompts whose KV entries can be used again.

vLLM caches every full block; here the grain is a part of PART_TOKENS tokens, which is what public
traces tell of prompts (the hash_ids of Mooncake's). The rules are vLLM's: a prompt reuses its
longest cached beginning, but computes its last token; what nobody holds stays until its blocks are
needed, and goes the least recently used first, of one prompt the tail first. Answers, and what of
a prompt is no whole part, are not cached.
"""

from typing import Final

from extproc.simulator.engine.sequence import Sequence

PART_TOKENS: Final = 512


class PrefixCache:
    """Which parts are held by how many running sequences, and which ones lie idle.

    The blocks of idle parts count as free: `trim` drops what the engine has taken of them.
    """

    def __init__(self, block_size: int) -> None:
        """Raise ValueError where a part is not a whole number of blocks."""
        if PART_TOKENS % block_size:
            raise ValueError(f"prefix caching needs a block_size that divides {PART_TOKENS}")
        self.part_blocks = PART_TOKENS // block_size
        self._holders: dict[int, int] = {}
        self._idle: dict[int, None] = {}  # the least recently used first

    def trim(self, free_blocks: int) -> None:
        """Forget the idle parts whose blocks are no longer free."""
        while len(self._idle) * self.part_blocks > free_blocks:
            del self._idle[next(iter(self._idle))]

    def held_blocks(self, sequence: Sequence) -> int:
        """Count the blocks of the prompt's beginning that running sequences hold already."""
        known = sequence.prefix[: self._hits(sequence)]
        return self.part_blocks * sum(part in self._holders for part in known)

    def take(self, sequence: Sequence) -> int:
        """Hold the cached beginning of a prompt; returns the free blocks that this takes."""
        parts = sequence.prefix[: self._hits(sequence)]
        woken = [part for part in parts if part in self._idle]
        for part in woken:
            del self._idle[part]
        for part in parts:
            self._holders[part] = self._holders.get(part, 0) + 1
        sequence.shared = len(parts)
        return self.part_blocks * len(woken)

    def add(self, sequence: Sequence, computed: int) -> None:
        """Cache the parts that are now computed, up to one that another sequence has cached."""
        whole = min(computed, sequence.prompt_tokens) // PART_TOKENS
        for part in sequence.prefix[sequence.shared : whole]:
            if part in self._holders or part in self._idle:
                return
            self._holders[part] = 1
            sequence.shared += 1

    def release(self, sequence: Sequence) -> int:
        """Let go of what a sequence holds; returns the blocks that others still hold."""
        still_held = 0
        for part in reversed(sequence.prefix[: sequence.shared]):
            self._holders[part] -= 1
            if self._holders[part]:
                still_held += self.part_blocks
            else:
                del self._holders[part]
                self._idle[part] = None
        sequence.shared = 0
        return still_held

    def _hits(self, sequence: Sequence) -> int:
        """Count the cached leading parts, of which one token at least is left to compute."""
        most = min(len(sequence.prefix), (sequence.prompt_tokens - 1) // PART_TOKENS)
        for count in range(most):
            part = sequence.prefix[count]
            if part not in self._holders and part not in self._idle:
                return count
        return most
