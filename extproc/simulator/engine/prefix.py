"""The prefix cache of an instance: parts of prompts whose KV entries can be reused.

vLLM caches every full block; this model caches parts of PART_TOKENS tokens, the granularity of
public traces (the hash_ids of Mooncake). The rules are vLLM's: a prompt reuses its longest cached
prefix but always computes its last token; parts that no running sequence holds stay cached until
their blocks are needed, and are evicted least recently used first, the tail of a prompt before its
head. Answers and incomplete parts are not cached.
"""

from typing import Final

from extproc.simulator.engine.sequence import Sequence

PART_TOKENS: Final = 512


class PrefixCache:
    """The cached parts: how many running sequences hold each, and which are idle.

    The blocks of idle parts count as free; `trim` evicts parts whose blocks the engine has taken.
    """

    def __init__(self, block_size: int) -> None:
        """Raise ValueError unless a part is a whole number of blocks."""
        if PART_TOKENS % block_size:
            raise ValueError(f"prefix caching needs a block_size that divides {PART_TOKENS}")
        self.part_blocks = PART_TOKENS // block_size
        self._holders: dict[int, int] = {}
        self._idle: dict[int, None] = {}  # the least recently used first

    def trim(self, free_blocks: int) -> None:
        """Evict idle parts until their blocks fit into the free ones."""
        while len(self._idle) * self.part_blocks > free_blocks:
            del self._idle[next(iter(self._idle))]

    def held_blocks(self, sequence: Sequence) -> int:
        """Count the blocks of the prompt's cached prefix that running sequences already hold."""
        known = sequence.prefix[: self._hits(sequence)]
        return self.part_blocks * sum(part in self._holders for part in known)

    def take(self, sequence: Sequence) -> int:
        """Hold the cached prefix of a prompt; return the number of free blocks that it takes."""
        parts = sequence.prefix[: self._hits(sequence)]
        woken = [part for part in parts if part in self._idle]
        for part in woken:
            del self._idle[part]
        for part in parts:
            self._holders[part] = self._holders.get(part, 0) + 1
        sequence.shared = len(parts)
        return self.part_blocks * len(woken)

    def add(self, sequence: Sequence, computed: int) -> None:
        """Cache the computed parts, up to the first that another sequence has already cached."""
        whole = min(computed, sequence.prompt_tokens) // PART_TOKENS
        for part in sequence.prefix[sequence.shared : whole]:
            # Two sequences that compute the same part at once each keep their blocks, as in vLLM,
            # whose block tables are append-only ("Duplicated blocks" in its
            # docs/design/prefix_caching.md).
            if part in self._holders or part in self._idle:
                return
            self._holders[part] = 1
            sequence.shared += 1

    def release(self, sequence: Sequence) -> int:
        """Release the parts of a sequence; return the number of blocks that others still hold."""
        still_held = 0
        # Reversed, so that the tail is evicted first: without its head a tail cannot be reused.
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
        """Count the cached leading parts; at least one token remains to be computed."""
        # The first output token is sampled from the last prompt token, which must therefore be
        # computed.
        most = min(len(sequence.prefix), (sequence.prompt_tokens - 1) // PART_TOKENS)
        for count in range(most):
            part = sequence.prefix[count]
            if part not in self._holders and part not in self._idle:
                return count
        return most
