"""Spread the simulations of a command over processes, or over the workers of a Dask cluster.

Both run through joblib. Invariant: the results, and their order, do not depend on where they run.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from rich.console import Console

from extproc.config.errors import UserError
from extproc.names import install_hint
from extproc.planner.proof.spread import Spread
from extproc.progress import Show, showing

_CONNECT_S: Final = 10
_FEW: Final = 20_000  # take as long as it takes to start a process
T = TypeVar("T")


class SweepError(UserError):
    """The sweep cannot be spread as asked."""


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """Where simulations run. jobs: processes; 0: one for each CPU. cluster: a Dask scheduler."""

    jobs: int = 0
    cluster: str = ""


SWEEP: Final = SweepOptions()


def sized(options: SweepOptions, requests: int) -> SweepOptions:
    """Return the options for so many simulated requests: few stay in this process by default."""
    return replace(options, jobs=1) if not options.jobs and requests < _FEW else options


@contextmanager
def spreading(options: SweepOptions) -> Iterator[Spread]:
    """Yield what runs the tasks, with their progress on standard error. Raises SweepError."""
    if options.jobs < 0:
        raise SweepError(f"--jobs: {options.jobs} is not allowed: at least 1 process")
    with showing(Console(stderr=True)) as show, ExitStack() as stack:
        if options.cluster:
            stack.enter_context(_dask(options.cluster))
        yield _Sweep(show, -1 if options.cluster else options.jobs or -1)


class _Sweep:
    def __init__(self, show: Show, jobs: int) -> None:
        """`jobs` as joblib counts them: -1 for each CPU or worker."""
        self._show, self._jobs = show, jobs

    def __call__(self, text: str, tasks: Sequence[Callable[[], T]]) -> Iterator[T]:
        """See `Spread`."""
        self._show.begin(text, len(tasks))
        for result in self._run(tasks):
            self._show.advance()
            yield result

    def _run(self, tasks: Sequence[Callable[[], T]]) -> Iterator[T]:
        if self._jobs == 1 or len(tasks) == 1:
            return (task() for task in tasks)
        joblib = _joblib()
        # One task at a time: they take from a second to a minute.
        parallel = joblib.Parallel(n_jobs=self._jobs, batch_size=1, return_as="generator")
        results: Iterator[T] = parallel(joblib.delayed(_call)(task) for task in tasks)
        return results


def _joblib() -> Any:
    # Imported where it is used: that takes 0.3 s, as long as a plan by formula.
    return importlib.import_module("joblib")


def _call(task: Callable[[], T]) -> T:
    return task()


@contextmanager
def _dask(address: str) -> Iterator[None]:
    """Run joblib's tasks on the workers of this scheduler; they need Dualpool installed."""
    if importlib.util.find_spec("distributed") is None:
        raise SweepError(f"--cluster: needs distributed: {install_hint('cluster')}")
    distributed: Any = importlib.import_module("distributed")
    try:
        client = distributed.Client(address, timeout=_CONNECT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise SweepError(f"--cluster: {address}: {error}; allowed: tcp://HOST:PORT") from None
    with client, _joblib().parallel_config(backend="dask"):
        yield
