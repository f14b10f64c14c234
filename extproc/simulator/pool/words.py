"""The text of a simulated answer: readable words and a length, drawn from a seed.

Invariant: the same seed gives the same answer, and every word is one token of o200k_base.
"""

import math
import random

# An answer ends after each token with this probability: 150 tokens on average without a limit.
END_PROBABILITY = 1 / 150

_TEXT = """
the of and to in is for that with as on by this from are it be or an at not can which have one
all more when time data also first other new two use each number then these about only may than
some into such if between over after where most system many process work part under order
example state because used same through based while must both general following result well
second form during point before high set small different very large case table water light field
level group model line power space change method current simple total long short open early
local public common given clear single whole known several together possible available important
certain often always never almost still again later soon already perhaps however therefore
without within around along across above below near far left side end start begin continue
follow lead move turn keep hold carry bring send return reach pass cross enter leave remain
become appear seem show find learn read write speak hear see look think know believe answer
question reason cause effect purpose plan rule law right duty trade market price cost value
measure weight length area figure report letter word name book page story history science art
music house street city country river mountain sea island forest tree garden flower bird horse
fish bread milk salt sugar gold silver iron stone glass paper
"""
WORDS = tuple(f" {word}" for word in _TEXT.split())


class GeneratedText:
    """The text of one sequence: `tokens` in all, ending with `finish`, "stop" or "length".

    The last token of a sequence that stops is an end-of-sequence token without text, as in vLLM.
    """

    def __init__(self, seed: bytes, limit: int, *, at_least: int, ignore_eos: bool) -> None:
        self._random = random.Random(seed)  # noqa: S311 - nothing secret
        length = at_least + _geometric(self._random.random())
        stops = length <= limit and not ignore_eos
        self.tokens = length if stops else limit
        self.finish = "stop" if stops else "length"
        self._words = self.tokens - stops

    def take(self, count: int) -> str:
        """Return the text of the next count tokens."""
        count = min(count, self._words)
        self._words -= count
        return "".join(self._random.choices(WORDS, k=count))


def _geometric(uniform: float) -> int:
    """Draw a number of tokens, at least 1, from a number in [0, 1)."""
    # Inverts P(length > n) = (1 - p)**n.
    return 1 + int(math.log1p(-uniform) / math.log1p(-END_PROBABILITY))
