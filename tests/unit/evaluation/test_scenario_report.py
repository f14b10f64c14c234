"""The table of scenarios."""

import io

from rich.console import Console

from extproc.evaluation.scenario_report import print_scenarios
from extproc.evaluation.scenario_run import Fared, ScenarioResult
from extproc.output import wide_console

_WIDTH = 200


def result(
    tokenizer: str = "one", part: str = "", misrouted: int = 0, scenario: str = "owls"
) -> ScenarioResult:
    ours = Fared(
        requests=5000, misrouted=misrouted, over_routed=100, near=500, near_misrouted=misrouted,
        long=1000, long_misrouted=misrouted, reserved=250, seen=4000.0, counted=2.0,
    )  # fmt: skip
    return ScenarioResult(
        scenario=scenario, part=part, tokenizer=tokenizer, target=0.001, ours=ours,
        exact=Fared(requests=5000, over_routed=50), forecast=0.0006,
        later=Fared(requests=2500, misrouted=misrouted),
    )  # fmt: skip


def printed(*results: ScenarioResult, color: bool = False) -> str:
    console = Console(file=io.StringIO(), width=_WIDTH, force_terminal=color)
    print_scenarios(console, results)
    return console.file.getvalue()


def line(text: str, start: str) -> list[str]:
    return next(each for each in text.splitlines() if each.strip().startswith(start)).split()


def test_a_row_is_over_all_tokenizers():
    text = printed(result("one", misrouted=5), result("two"))
    misrouted, exact = ["0.050", "(0.021-0.117)", "2.00"], ["0.000", "(0.000-0.038)", "1.00"]
    later, rest = ["0.100", "(0.043-0.234)"], ["0.060", "0.050", "0.50", "99.75", "5.00"]
    assert line(text, "owls") == ["owls", "10000", "0.1", *misrouted, *exact, *later, *rest]
    assert "(one, two)" in text


def test_parts_have_rows_of_their_own():
    text = printed(result(part="first 2000"), result(part="after 2000"))
    assert "owls, first 2000" in text
    assert "owls, after 2000" in text


def test_a_target_that_is_missed_beyond_chance_is_yellow():
    assert "\x1b[33m" in printed(result(misrouted=50), color=True)
    assert "\x1b[33m" not in printed(result(misrouted=6), color=True)


def test_what_was_skipped_is_listed_with_the_reason():
    console = Console(file=io.StringIO(), width=_WIDTH)
    print_scenarios(console, [result()], ["chat template"])
    assert "chat template: skipped, no tokenizer has a chat template" in console.file.getvalue()


def test_no_figure_of_a_scenario_is_cut_off_in_a_pipe(capsys):
    print_scenarios(wide_console(), [result(scenario="owls" * 50)])
    printed = capsys.readouterr().out
    assert "\u2026" not in printed
    assert line(printed, "owls")[-5:] == ["0.060", "0.050", "0.00", "100.00", "5.00"]
