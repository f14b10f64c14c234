"""Compile the modules that every request passes through; see docs/decisions/0019."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledModules(BuildHookInterface[Any]):
    """Adds extension modules to a wheel, beside their sources; Python imports them first."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile `modules` of the hook's table in pyproject.toml."""
        if version == "editable":  # its sources are meant to be changed
            return
        self._scratch = TemporaryDirectory()
        built = Path(self._scratch.name) / "built"
        compile_into(built, [str(path) for path in self.config["modules"]])
        found = {str(path): str(path.relative_to(built)) for path in built.rglob("*.so")}
        build_data["force_include"].update(found)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what the wheel has."""
        del build_data, artifact_path
        if version != "editable":
            self._scratch.cleanup()


def compile_into(built: Path, modules: list[str]) -> None:
    """Compile modules of the current folder into another: Python with mypyc, and C.

    Needs a C compiler, and a minute.
    """
    # Imported here: only a build that compiles has them.
    from mypyc.build import mypycify  # noqa: PLC0415
    from setuptools import Distribution, Extension  # noqa: PLC0415

    python = f"--python-version={sys.version_info.major}.{sys.version_info.minor}"
    typed = [module for module in modules if module.endswith(".py")]
    extensions = mypycify(
        ["--config-file=pyproject.toml", python, *typed],
        debug_level="0",
        group_name="dualpool",
        target_dir=str(built.with_name("c")),
    )
    for source in sorted({*modules} - {*typed}):
        name = source.removesuffix(".c").replace("/", ".")
        extensions.append(Extension(name, [source], extra_compile_args=["-O3", "-g0"]))
    command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(built), str(built.with_name("o"))
    command.ensure_finalized()
    command.run()
