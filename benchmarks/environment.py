"""What a benchmark ran on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from extproc.local.envoy import find_envoy


def describe_machine() -> str:
    """Return the number of cores, the processor and the kernel."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")
    return f"{os.cpu_count()} cores, {cpu}, {platform.platform()}"


def describe_versions(*packages: str) -> str:
    """Return the versions of Envoy, Python and some packages."""
    told = subprocess.run((find_envoy(), "--version"), capture_output=True, text=True, check=True)  # noqa: S603
    envoy = told.stdout.partition("version:")[2].split("/")[1]
    names = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"Envoy {envoy}, Python {platform.python_version()}, {names}"
