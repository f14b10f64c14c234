"""The papers' figures that formulas give."""

import pytest

from extproc.papers.sections import (
    PaperSection,
    closed_form_section,
    golden_section,
    mi300x_section,
    table_2_section,
    table_5_section,
)


def ours(section: PaperSection) -> dict[str, str]:
    return {row.what: row.ours for row in section.rows}


def test_the_closed_form_gives_the_papers_cases_exactly():
    for row in closed_form_section().rows:
        assert row.ours.replace("%", " %") == row.paper


def test_every_row_of_the_authors_planner_is_reproduced():
    for row in golden_section().rows:
        assert row.ours == row.paper, row.what


def test_the_totals_of_table_2_are_reproduced_with_the_stated_changes():
    figures = ours(table_2_section())
    assert figures["Azure: 358 -> 208, all rates as published"] == "alpha 0.558: 208"
    assert figures["Azure: alpha 0.80 as published"] == "1.47 req/s: 208"
    assert figures["LMSYS: alpha 0.68 as published"] == "1.73 req/s: 246"


def test_the_mi300x_case_is_reproduced():
    figures = ours(mi300x_section())
    assert figures["KV cache of a GPU, bytes a token"] == "133.4 GB, 24064"
    assert figures["sequences at 8K and at 32K"] == "676, 169"
    assert figures["GPUs"] == "1576 -> 1096 (30.5%)"
    assert figures["saved a year of 8760 h"] == "$15.43M"


def test_the_ratios_of_table_5_are_within_what_the_rule_learns():
    for row in table_5_section().rows:
        low, high = (float(part) for part in row.why.split(";")[0].split(": ")[1].split(" to "))
        assert low <= float(row.paper.split()[0]) <= high


@pytest.mark.parametrize(("kind", "ratio"), [("English", 4.44), ("code", 3.56), ("CJK", 2.16)])
def test_without_noise_the_rule_learns_by_the_settings_beta_and_prior(kind, ratio):
    (row,) = (row for row in table_5_section().rows if row.what.startswith(kind))
    assert row.why.endswith(f"without noise {ratio:.2f}")
    assert table_5_section().title.endswith("beta 0.95, prior 4.0")
