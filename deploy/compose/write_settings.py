"""Checks .env and writes what the containers read: settings, Envoy's file, the pools' flags.

What runs keeps the old files until all of the new ones are right, and restarts by itself once they
have changed (run.sh). The windows and sizes of a pool `short` come from SHORT_MAX_MODEL_LEN,
SHORT_MAX_NUM_SEQS, SHORT_MAX_NUM_BATCHED_TOKENS, SHORT_GPU_MEMORY and SHORT_CPU_KV_GIB; all else is
in the settings file. The folder `shared` gets the files of the profiles with replicas, which have
the keys of shared.yaml. With --check nothing is written.
"""

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
SHARED_NAME = "deploy/compose/shared.yaml"
ENV_FILE = Path(os.environ.get("ENV_FILE", "/etc/dualpool/.env"))
SHARED_FILE = Path(os.environ.get("SHARED_FILE", "/etc/dualpool/shared.yaml"))

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


def read_document(source: Path) -> dict[str, Any]:
    """Return the settings of the source with the windows of the environment.

    Raises EnvironmentFileError.
    """
    try:
        settings = load(source)
    except ConfigError as error:
        raise EnvironmentFileError(str(error).replace(str(source), SETTINGS_NAME)) from None
    if faults := list(environment_faults([pool.name for pool in settings.pools])):
        raise EnvironmentFileError("\n".join(faults))
    document: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    for pool in (pool for row in document.get("rows") or [document] for pool in row["pools"]):
        window = os.environ.get(variable(str(pool["name"]), "MAX_MODEL_LEN"))
        pool["max_model_len"] = int(window) if window else pool["max_model_len"]
    return document


def with_replicas(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with the keys of SHARED_FILE."""
    shared: dict[str, Any] = yaml.safe_load(SHARED_FILE.read_text(encoding="utf-8"))
    over = {
        key: {**(document.get(key) or {}), **value} if isinstance(value, dict) else value
        for key, value in shared.items()
    }
    return {**document, **over}


def explained(line: str, document: Mapping[str, Any], name: str) -> str:
    """Return a fault of a draft, by the file that the operator has written."""
    if found := _WINDOW_FAULT.fullmatch(line):
        rows = document.get("rows") or [document]
        pool = rows[int(found[1] or 0)]["pools"][int(found[2])]["name"]
        name = variable(str(pool), "MAX_MODEL_LEN")
        return f"{place(name)}: {name}: {found[3]}"
    return f"{name} with the windows of .env: {line.split(': ', 1)[-1]}"


def flags(pool: str, ends: Sequence[str]) -> str:
    """Return the flags of a pool whose variables are set."""
    given = [(FLAGS[end][0], os.environ.get(variable(pool, end))) for end in ends]
    return "\n".join(f"{flag}{value}" for flag, value in given if value is not None) + "\n"


def files(document: Mapping[str, Any], draft: Path, name: str) -> tuple[Settings, dict[str, str]]:
    """Return the settings, and what the service and Envoy read, by the files' names.

    Raises EnvironmentFileError and RenderError. `draft` is a file to use, `name` what it is called.
    """
    text = yaml.safe_dump(document, sort_keys=False)
    draft.write_text(text, encoding="utf-8")
    try:
        settings = load(draft)
    except ConfigError as error:
        lines = [explained(line, document, name) for line in str(error).splitlines()]
        raise EnvironmentFileError("\n".join(lines)) from None
    return settings, {"dualpool.yaml": text, "envoy.yaml": render_envoy(settings)}


def all_files(source: Path, draft: Path) -> tuple[Settings, dict[str, str]]:
    """Return the settings of one service, and all files; raises as `files` does."""
    document = read_document(source)
    settings, texts = files(document, draft, SETTINGS_NAME)
    shared = files(with_replicas(document), draft, f"{SETTINGS_NAME} and {SHARED_NAME}")[1]
    texts |= {f"shared/{name}": text for name, text in shared.items()}
    for pool in settings.pools:
        for profile, ends in _PROFILES.items():
            texts[f"{pool.name}{profile}.args"] = flags(pool.name, ends)
    return settings, texts


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files, each at once, and only those that have changed."""
    for name, text in texts.items():
        path = folder / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(exist_ok=True)
        new = folder / f"{name}.new"
        new.write_text(text, encoding="utf-8")
        new.replace(path)


def main(source: Path, folder: Path, *, check: bool) -> int:
    """Write the files into the folder, or only check them; 2 where something is wrong."""
    draft = Path("/tmp" if check else folder) / "draft.yaml"  # noqa: S108  # the container's own
    try:
        settings, texts = all_files(source, draft)
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
