"""What it costs to save what was learnt, and to continue from it, in CPU time.

    python -m benchmarks.snapshot [--answers N]

20 models, 10 categories and 100 tenants are taught by answers that differ in length and text. The
longest part is how long a snapshot keeps a decision waiting at most, beside its slice of 1 ms.
"""

import argparse
import random
import time
from collections.abc import Iterator

from extproc.budget.measure import measure
from extproc.budget.values import Asked, Observation, Outcome
from extproc.build import build_learner
from extproc.config.settings import CategorySettings, Settings, TenantSettings
from extproc.state.snapshot import Snapshot, decode, encode, fingerprint, frames_of

SETTINGS = Settings(
    categories=CategorySettings(header="x-task", max=1024),
    tenants=TenantSettings(header="x-tenant", max=128),
)
TEXT = b"The owl sat still in the old barn, as owls do; nobody had noticed it. "


def answers(count: int) -> Iterator[Observation]:
    """Yield answers of all models, categories and tenants."""
    draw = random.Random(1)  # noqa: S311
    for _ in range(count):
        size = int(draw.lognormvariate(7.0, 1.0)) + 20
        sample = (TEXT * (size // len(TEXT) + 1))[: min(size, 4096)]
        found = measure(sample, size, messages=draw.randint(1, 5))
        names = f"model-{draw.randrange(20)}", f"task-{draw.randrange(10)}"
        tenant = f"tenant-{draw.randrange(100)}"
        asked = Asked(*names, found, draw.choice((None, 256)), tenant=tenant)
        tokens = int(size / 4.2 * draw.gauss(1.0, 0.03)) + 12
        yield Observation(asked, Outcome.COMPLETE, 8192, tokens, draw.randint(20, 200))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=10_000)
    learner, mark = build_learner(SETTINGS), fingerprint("benchmark")
    for seen in answers(parser.parse_args().answers):
        learner.learn(seen)
    frames, taken = list[bytes](), list[float]()
    begin = time.thread_time()
    for frame in frames_of(learner):
        frames.append(frame)
        now = time.thread_time()
        taken.append(now - begin)
        begin = now
    data = b"".join(encode(Snapshot(tuple(frames)), mark))
    begin = time.thread_time()
    decode(data, mark).load(build_learner(SETTINGS))
    loaded = time.thread_time() - begin
    print(f"{len(frames)} parts, {len(data) / 1e6:.1f} MB")  # noqa: T201
    print(f"to save: {sum(taken) * 1e3:.0f} ms, the longest part {max(taken) * 1e3:.2f} ms")  # noqa: T201
    print(f"to load: {loaded * 1e3:.0f} ms")  # noqa: T201


if __name__ == "__main__":
    main()
