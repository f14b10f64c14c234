"""Builds the programs of `native/` where a compiler is; the benchmarks do without those that fail.

Not part of the product: a load client and a pool that cost little, and two servers that decide
nothing, which the service is compared with.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_SOURCES: Final = Path(__file__).with_name("native")
_PROTOS: Final = _ROOT / "protos"
_BUILT: Final = _ROOT / "build" / "bench"
_C_PROGRAMS: Final = ("load", "pool", "raw_null")
_GRPC: Final = "grpc_null"


@dataclass(frozen=True, slots=True)
class Programs:
    """The paths of the programs that were built, and for the others why they were not."""

    paths: Mapping[str, Path]
    missing: Mapping[str, str]


class _BuildError(Exception):
    """A program cannot be built here; the message says what is missing."""


def build_programs() -> Programs:
    """Build what is missing or older than its sources; the first time takes half a minute."""
    paths, missing = {}, {}
    for name in (*_C_PROGRAMS, _GRPC):
        try:
            paths[name] = _build(name)
        except _BuildError as error:
            missing[name] = str(error)
    return Programs(paths, missing)


def _build(name: str) -> Path:
    target = _BUILT / name
    sources = (*_SOURCES.iterdir(), *_PROTOS.rglob("*.proto"))
    newest = max(source.stat().st_mtime for source in sources)
    if target.exists() and target.stat().st_mtime >= newest:
        return target
    _BUILT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_BUILT) as folder:
        built = Path(folder, name)
        _compile_grpc(built) if name == _GRPC else _compile_c(built)
        built.replace(target)
    return target


def _compile_c(target: Path) -> None:
    source = _SOURCES / f"{target.name}.c"
    _run(_program(os.environ.get("CC", "cc")), "-O2", "-o", str(target), str(source), "-lm")


def _compile_grpc(target: Path) -> None:
    compiler, protoc = _program(os.environ.get("CXX", "c++")), _program("protoc")
    plugin, config = _program("grpc_cpp_plugin"), _program("pkg-config")
    flags = _run(config, "--cflags", "--libs", "grpc++", "protobuf").split()
    # Without those of envoy.data.ai, which the server does not read.
    protos = [path for path in _PROTOS.rglob("*.proto") if "ai" not in path.parts]
    folder = target.parent
    _run(
        protoc, f"-I{_PROTOS}", f"--cpp_out={folder}", f"--grpc_out={folder}",
        f"--plugin=protoc-gen-grpc={plugin}", *map(str, protos),
    )  # fmt: skip
    generated = map(str, folder.rglob("*.cc"))
    source = str(_SOURCES / f"{target.name}.cc")
    _run(compiler, "-O2", f"-I{folder}", "-o", str(target), source, *generated, *flags)


def _program(name: str) -> str:
    found = shutil.which(name)
    if not found:
        raise _BuildError(f"no {name}")
    return found


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise _BuildError(_first_line(done.stderr.splitlines()) or f"{argv[0]} failed")
    return done.stdout


def _first_line(lines: Sequence[str]) -> str:
    return next((line for line in lines if "error" in line), lines[0] if lines else "")
