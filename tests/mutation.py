"""Mutate the core at random places, and report the mutants that its unit tests do not notice.

    python -m tests.mutation --count 60 --seed 0

A mutant is one small change of the source: another operator, another number, a condition negated,
a result or a call left out. The same seed and source give the same mutants. Everything runs in
copies of the tree, one for each CPU core. Exit code 1 if more than --allow mutants survive.

Texts, annotations and decorators are not mutated. A mutant that changes nothing that can be seen,
such as a larger buffer, survives too: read the diffs.
"""

import argparse
import ast
import difflib
import os
import queue
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

MEASURED = {"prior.py"}  # figures of a fit: no test can know them better
ROOMS = ("stream", "request", "response", "budget", "routing")
TIMEOUT_S = 180  # the tests of a room take 5 to 30 seconds
MEMORY_BYTES = 8 << 30

_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file of the tree with one part of it replaced."""

    path: str
    before: bytes
    after: bytes

    def diff(self) -> str:
        """Return the change as a unified diff."""
        texts = (source.decode().splitlines(keepends=True) for source in (self.before, self.after))
        return "".join(difflib.unified_diff(*texts, self.path, self.path, n=1))


def mutants(path: str, source: bytes) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _code(ast.parse(source)):
        for part, text in _replacements(node):
            start = starts[part.lineno - 1] + part.col_offset
            end = starts[part.end_lineno - 1] + part.end_col_offset
            yield Mutant(path, source, source[:start] + text.encode() + source[end:])


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run as code: no annotations, decorators or parts of f-strings."""
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list"} or isinstance(node, ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child
                yield from _code(child)


def _replacements(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield the changes of a node itself: a part of it, and the text to put there."""
    match node:
        case ast.Constant(value=bool(value)):
            yield node, str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield node, repr(value + 1)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield node, _text(operand)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for i, op in enumerate(ops):
                swapped = [*ops[:i], _SWAPS[type(op)](), *ops[i + 1 :]]
                yield node, _text(ast.Compare(left, swapped, comparators))
        case ast.BoolOp(op=op, values=values):
            yield node, _text(ast.BoolOp(_SWAPS[type(op)](), values))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SWAPS:
            yield node, _text(ast.BinOp(left, _SWAPS[type(op)](), right))
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in _SWAPS:
            yield node, ast.unparse(ast.AugAssign(target, _SWAPS[type(op)](), value))
            yield node, "pass"
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield test, _text(ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=ifs):
            yield from ((test, _text(ast.UnaryOp(ast.Not(), test))) for test in ifs)
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield node, "return None"
        case ast.Raise() | ast.Expr(value=ast.Call()):
            yield node, "pass"


def _text(expression: ast.expr) -> str:
    return f"({ast.unparse(expression)})"


def sample(count: int, seed: int) -> list[Mutant]:
    """Draw mutants of the core."""
    every = [
        mutant
        for room in ROOMS
        for file in sorted((ROOT / "extproc" / room).glob("*.py"))
        if file.name not in MEASURED
        for mutant in mutants(str(file.relative_to(ROOT)), file.read_bytes())
    ]
    return random.Random(seed).sample(every, min(count, len(every)))


def copy_tree(folder: Path) -> Path:
    """Copy what Git tracks or would track into `folder`, as it is now; return the copy's root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def nearest_tests(path: str) -> list[str]:
    """Return the tests of a module: its own, its room's, and those of the whole stream."""
    room, module = Path(path).parts[1], Path(path).stem
    own = f"tests/unit/{room}/test_{module}.py"
    first = [file for file in (own, "tests/unit/test_bounds.py") if (ROOT / file).exists()]
    return [*first, f"tests/unit/{room}", "tests/unit/stream"]


def passes(copy: Path, tests: list[str]) -> bool:
    """Run tests in a copy; False if one fails, or they need too much time or memory."""
    # Without bytecode: two versions of a file within a second and of one size look alike to it.
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, "--hypothesis-seed=0", *dict.fromkeys(tests)],
            cwd=copy,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def survives(mutant: Mutant, copies: "queue.Queue[Path]") -> bool:
    """Run the tests of the mutated module in a copy that is free."""
    copy = copies.get()
    file = copy / mutant.path
    try:
        file.write_bytes(mutant.after)
        return passes(copy, nearest_tests(mutant.path))
    finally:
        file.write_bytes(mutant.before)
        copies.put(copy)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=60, help="mutants (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--allow", type=int, default=3, help="survivors (default: %(default)s)")
    options = parser.parse_args()
    drawn = sample(options.count, options.seed)
    with tempfile.TemporaryDirectory(prefix="dualpool-mutants-") as folder:
        copies: queue.Queue[Path] = queue.Queue()
        for core in range(os.cpu_count() or 1):
            copies.put(copy_tree(Path(folder) / str(core)))
        if not passes(copies.queue[0], [f"tests/unit/{room}" for room in ROOMS]):
            print("the core's unit tests fail without a mutant: mend them first")
            return 2
        with ThreadPoolExecutor(copies.qsize()) as threads:
            results = threads.map(lambda mutant: survives(mutant, copies), drawn)
            survivors = [
                mutant for mutant, alive in zip(drawn, report(results), strict=True) if alive
            ]
    print("\n".join(mutant.diff() for mutant in survivors))
    print(f"seed {options.seed}: {len(drawn) - len(survivors)} of {len(drawn)} mutants noticed")
    return len(survivors) > options.allow


def report(results: Iterator[bool]) -> Iterator[bool]:
    """Print a letter for each result: a dot if the mutant was noticed, S if it survives."""
    for alive in results:
        print("S" if alive else ".", end="", flush=True)
        yield alive
    print()


if __name__ == "__main__":
    sys.exit(main())
