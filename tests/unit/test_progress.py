import io

from rich.console import Console

from extproc.progress import showing


def _shown(*, terminal: bool) -> str:
    stream = io.StringIO()
    with showing(Console(file=stream, force_terminal=terminal, width=80)) as show:
        show.say("Waiting for [pools]")
        show.begin("Requests", 25)
        for _ in range(25):
            show.advance()
    return stream.getvalue()


def test_elsewhere_than_on_a_terminal_there_are_ten_lines():
    lines = _shown(terminal=False).splitlines()
    assert lines[0] == "Waiting for [pools]"
    assert len(lines) == 11
    assert lines[-1] == "Requests: 25 of 25"


def test_a_terminal_gets_a_bar():
    shown = _shown(terminal=True)
    assert "25 of 25" in shown
