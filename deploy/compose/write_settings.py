"""Writes the stack's settings and Envoy's configuration, before those who read them start.

The windows come from the environment, where the pools have theirs from: SHORT_MAX_MODEL_LEN for
the pool `short`. All else is in the settings file.
"""

import os
import sys
from pathlib import Path

import yaml

from extproc.config.load import ConfigError, load
from extproc.envoy.render import RenderError, render_envoy


def main(source: Path, folder: Path) -> int:
    """Write dualpool.yaml and envoy.yaml into the folder; 2 where the settings are wrong."""
    document = yaml.safe_load(source.read_text(encoding="utf-8"))
    for pool in document["pools"]:
        name = pool["name"].upper().replace("-", "_")
        pool["max_model_len"] = yaml.safe_load(os.environ[f"{name}_MAX_MODEL_LEN"])
    # What runs reads the old files until the new ones are known to be right.
    draft = folder / "draft.yaml"
    draft.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    try:
        (folder / "envoy.yaml").write_text(render_envoy(load(draft)), encoding="utf-8")
    except (ConfigError, RenderError) as error:
        print(f"{source} with the windows of .env: {error}", file=sys.stderr)  # noqa: T201
        return 2
    draft.replace(folder / "dualpool.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
