import io

import pytest
from rich.console import Console
from rich.progress import Progress

from extproc.progress import _Bar, showing


def _shown(*, terminal: bool, items: int | list[float] = 25) -> str:
    stream = io.StringIO()
    with showing(Console(file=stream, force_terminal=terminal, width=80)) as show:
        show.say("Waiting for [pools]")
        show.begin("Requests", items)
        for _ in range(25):
            show.advance()
    return stream.getvalue()


@pytest.mark.parametrize("items", [25, [0.1] * 25])
def test_elsewhere_than_on_a_terminal_there_are_ten_lines(items):
    lines = _shown(terminal=False, items=items).splitlines()
    assert lines[0] == "Waiting for [pools]"
    assert len(lines) == 11
    assert lines[-1] == "Requests: 25 of 25"


def test_a_terminal_gets_a_bar():
    shown = _shown(terminal=True)
    assert "25 of 25" in shown
    assert "left" not in shown


def test_what_is_left_follows_from_the_work_that_is_done():
    now_s = 0.0
    progress = Progress(get_time=lambda: now_s, disable=True)
    bar = _Bar(progress)
    bar.begin("Measuring", [1.0, 1.0, 8.0])
    now_s = 10.0
    bar.advance()
    (task,) = progress.tasks
    assert (task.completed, task.total) == (1.0, 10.0)
    assert task.fields["counted"] == "1 of 3, about 90 s left"
