"""Checks .env and writes what the containers read: settings, Envoy's file, the pools' flags.

What runs keeps the old files until all of the new ones are right, and restarts by itself once they
have changed (run.sh). The windows and sizes of a pool `short` come from SHORT_MAX_MODEL_LEN,
SHORT_MAX_NUM_SEQS, SHORT_MAX_NUM_BATCHED_TOKENS, SHORT_GPU_MEMORY and SHORT_CPU_KV_GIB; all else is
in the settings file. With --check nothing is written.
"""

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from extproc.config.load import ConfigError, load
from extproc.config.settings import Settings
from extproc.envoy.render import RenderError, render_envoy

# As the operator calls the files, and as the container sees .env.
SETTINGS_NAME = os.environ.get("SETTINGS_FILE", "envoy/dualpool.yaml")
ENV_FILE = Path(os.environ.get("ENV_FILE", "/etc/dualpool/.env"))

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(\w+)\s*=\s*(.*?)\s*$")
_WINDOW_FAULT = re.compile(r".*?:\d+: (?:rows\[(\d+)\]\.)?pools\[(\d+)\]\.max_model_len: (.*)")
_WHOLE = "a whole number from 1 to 1000000000"
_SHARE = "a number above 0 and up to 1"


class EnvironmentFileError(Exception):
    """The text has one line for each fault."""


def is_whole(text: str) -> bool:
    """Whether the text is a whole number in the allowed range."""
    return re.fullmatch(r"[1-9][0-9]{0,8}|1000000000", text) is not None


def is_share(text: str) -> bool:
    """Whether the text is a share of a GPU's memory."""
    return re.fullmatch(r"0?\.[0-9]{1,6}|1(\.0{1,6})?", text) is not None and float(text) > 0


# What a value is given to the pool as, by the end of its variable, and what it may be.
FLAGS: Mapping[str, tuple[str, Callable[[str], bool], str]] = {
    "MAX_MODEL_LEN": ("--max-model-len=", is_whole, _WHOLE),
    "MAX_NUM_SEQS": ("--max-num-seqs=", is_whole, _WHOLE),
    "MAX_NUM_BATCHED_TOKENS": ("--max-num-batched-tokens=", is_whole, _WHOLE),
    "GPU_MEMORY": ("--gpu-memory-utilization=", is_share, _SHARE),
    "CPU_KV_GIB": ("VLLM_CPU_KVCACHE_SPACE=", is_whole, _WHOLE),
}
# The variables of every profile, and those of one alone.
_SIZES = ("MAX_MODEL_LEN", "MAX_NUM_SEQS", "MAX_NUM_BATCHED_TOKENS")
_PROFILES = {"": _SIZES, "-gpu": (*_SIZES, "GPU_MEMORY"), "-cpu": (*_SIZES, "CPU_KV_GIB")}


def variable(pool: str, end: str) -> str:
    """Return the name of a pool's variable."""
    return f"{pool.upper().replace('-', '_')}_{end}"


def place(name: str) -> str:
    """Return where a variable was set: the line of .env, or the environment that goes before it."""
    lines = ENV_FILE.read_text(encoding="utf-8").splitlines() if ENV_FILE.is_file() else []
    found = ((number, _ASSIGNMENT.match(line)) for number, line in enumerate(lines, 1))
    named = [(number, match[2]) for number, match in found if match and match[1] == name]
    for number, text in reversed(named):
        if text.partition(" #")[0].strip().strip("'\"") == os.environ.get(name):
            return f".env:{number}"
    return "environment"


def environment_faults(pools: list[str]) -> Iterator[str]:
    """Yield the variables whose values cannot be right by themselves."""
    for pool in pools:
        for end, (_, holds, allowed) in FLAGS.items():
            name = variable(pool, end)
            value = os.environ.get(name)
            if value is not None and not holds(value):
                yield f"{place(name)}: {name}: {value!r} is not allowed: {allowed}"


def read_settings(source: Path, draft: Path) -> Settings:
    """Return the settings of the source with the windows of the environment.

    Raises EnvironmentFileError; `draft` is where they are left.
    """
    try:
        names = [[pool.name for pool in row.pools] for row in load(source).fleet]
    except ConfigError as error:
        raise EnvironmentFileError(str(error).replace(str(source), SETTINGS_NAME)) from None
    if faults := list(environment_faults(list(itertools.chain(*names)))):
        raise EnvironmentFileError("\n".join(faults))
    document = yaml.safe_load(source.read_text(encoding="utf-8"))
    for pool in (pool for row in document.get("rows") or [document] for pool in row["pools"]):
        window = os.environ.get(variable(str(pool["name"]), "MAX_MODEL_LEN"))
        pool["max_model_len"] = int(window) if window else pool["max_model_len"]
    draft.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    try:
        return load(draft)
    except ConfigError as error:
        lines = str(error).splitlines()
        raise EnvironmentFileError("\n".join(explained(line, names) for line in lines)) from None


def explained(line: str, names: list[list[str]]) -> str:
    """Return a fault of the draft, by the file that the operator has written."""
    if found := _WINDOW_FAULT.fullmatch(line):
        name = variable(names[int(found[1] or 0)][int(found[2])], "MAX_MODEL_LEN")
        return f"{place(name)}: {name}: {found[3]}"
    return f"{SETTINGS_NAME} with the windows of .env: {line.split(': ', 1)[-1]}"


def flags(pool: str, ends: Sequence[str]) -> str:
    """Return the flags of a pool whose variables are set."""
    given = [(FLAGS[end][0], os.environ.get(variable(pool, end))) for end in ends]
    return "\n".join(f"{flag}{value}" for flag, value in given if value is not None) + "\n"


def files(settings: Settings, draft: Path) -> dict[str, str]:
    """Return the content of each file by its name; raises RenderError."""
    texts = {
        "dualpool.yaml": draft.read_text(encoding="utf-8"),
        "envoy.yaml": render_envoy(settings),
    }
    for pool in settings.pools:
        for profile, ends in _PROFILES.items():
            texts[f"{pool.name}{profile}.args"] = flags(pool.name, ends)
    return texts


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files, each at once, and only those that have changed."""
    for name, text in texts.items():
        path = folder / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        new = folder / f"{name}.new"
        new.write_text(text, encoding="utf-8")
        new.replace(path)


def main(source: Path, folder: Path, *, check: bool) -> int:
    """Write the files into the folder, or only check them; 2 where something is wrong."""
    draft = Path("/tmp" if check else folder) / "draft.yaml"  # noqa: S108  # the container's own
    try:
        settings = read_settings(source, draft)
        texts: dict[str, Any] = files(settings, draft)
    except (EnvironmentFileError, RenderError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        print("nothing was changed: what runs keeps its settings", file=sys.stderr)  # noqa: T201
        return 2
    if not check:
        write(folder, texts)
    pools = ", ".join(f"{pool.name} {pool.max_model_len}" for pool in settings.pools)
    print(f".env and {SETTINGS_NAME} are right: {pools}")  # noqa: T201
    return 0


if __name__ == "__main__":
    arguments = [text for text in sys.argv[1:] if text != "--check"]
    sys.exit(main(Path(arguments[0]), Path(arguments[1]), check="--check" in sys.argv))
