"""Shows the progress of a long command: a bar on a terminal, else a line per tenth."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

_LINES = 10


class Show(Protocol):
    """A display of progress."""

    def say(self, text: str) -> None:
        """Show what is being waited for."""

    def begin(self, text: str, items: int | Sequence[float]) -> None:
        """Start a count of so many items, or of one for each of these shares of the work.

        The bar, and what it says is left, follow from the work that is done, not from the count.
        """

    def advance(self) -> None:
        """Add one to the count."""


class _Bar:
    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._task = progress.add_task("Starting", total=None, counted="")
        self._work: list[float] = []
        self._is_known, self._done = False, 0

    def say(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def begin(self, text: str, items: int | Sequence[float]) -> None:
        self._work = [1.0] * items if isinstance(items, int) else list(items)
        # Items of which nothing is known take anything: nothing is said of what is left.
        self._is_known, self._done = not isinstance(items, int), 0
        total = sum(self._work)
        self._progress.reset(self._task, description=text, total=total, counted="")

    def advance(self) -> None:
        task = self._progress.tasks[0]
        work, self._done = self._work[self._done], self._done + 1
        counted = f"{self._done} of {len(self._work)}"
        left = (task.total or 0.0) - task.completed - work
        if self._is_known and task.elapsed:
            counted += f", about {task.elapsed * left / (task.completed + work):.0f} s left"
        self._progress.update(self._task, advance=work, counted=counted)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._text, self._total, self._done = "", 0, 0

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def begin(self, text: str, items: int | Sequence[float]) -> None:
        self._total = items if isinstance(items, int) else len(items)
        self._text, self._done = text, 0

    def advance(self) -> None:
        self._done += 1
        if self._done * _LINES // self._total > (self._done - 1) * _LINES // self._total:
            self.say(f"{self._text}: {self._done} of {self._total}")


@contextmanager
def showing(console: Console) -> Iterator[Show]:
    """Yield a display on the console that lasts as long as the block."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    # Imported here: a terminal alone needs bars.
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    counted = TextColumn("{task.fields[counted]}")
    columns = (text, BarColumn(), counted, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)
