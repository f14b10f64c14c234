"""The mutants of a module."""

import pytest

from tests.mutation import mutants, nearest_tests, sample


def changed(source):
    """The first changed line of each mutant."""
    found = [mutant.after.decode() for mutant in mutants("m.py", source.encode())]
    before = source.splitlines()
    return [
        next(line for line, old in zip(text.splitlines(), before, strict=False) if line != old)
        for text in found
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["(a <= b)"]),
        ("a < b <= c", ["(a <= b <= c)", "(a < b < c)"]),
        ("a and b", ["(a or b)"]),
        ("not a", ["(a)"]),
        ("a + 1", ["(a - 1)", "a + 2"]),
        ("x += a", ["x -= a", "pass"]),
        ("f(True)", ["pass", "f(False)"]),
        ("b if a else c", ["b if (not a) else c"]),
        ("[x for x in y if x]", ["[x for x in y if (not x)]"]),
        ("raise E", ["pass"]),
        ("def f():\n    return a", ["    return None"]),
        ("if a:\n    b", ["if (not a):"]),
        ("while 'ä' in b:\n    c", ["while (not 'ä' in b):", "while ('ä' not in b):"]),
    ],
)
def test_each_part_is_changed_by_itself(source, expected):
    assert changed(source) == expected


@pytest.mark.parametrize(
    "source", ["'text'", "x: int", "f'{a + 1}'", "@d(1)\nclass C: ...", "x: f(1) = a"]
)
def test_what_does_not_run_or_is_text_stays(source):
    assert not changed(source)


def test_every_mutant_of_the_core_is_a_module():
    for mutant in sample(10_000, 0)[:500]:
        compile(mutant.after, mutant.path, "exec")
        assert mutant.after != mutant.before
        assert mutant.diff()


def test_a_seed_gives_the_same_mutants():
    assert sample(5, 1) == sample(5, 1)
    assert sample(5, 1) != sample(5, 2)


def test_a_module_s_own_tests_run_first():
    assert nearest_tests("extproc/budget/steering.py") == [
        "tests/unit/budget/test_steering.py",
        "tests/unit/test_bounds.py",
        "tests/unit/budget",
        "tests/unit/stream",
    ]
