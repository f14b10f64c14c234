"""Check a dashboard against the types that Grafana publishes of its JSON, without a Grafana.

They come as TypeScript, of which `.ci/get-grafana-schema DIR` installs the compiler too;
DUALPOOL_GRAFANA_SCHEMA names DIR.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

_OPTIONS = "@grafana/schema/dist/esm/raw/composable/{folder}/panelcfg/x/{kind}PanelCfg_types.gen"
_KINDS = {"stat": "Stat", "timeseries": "TimeSeries"}
# A value of an enumeration is written as its text.
_HEAD = (
    'import type {Dashboard, Panel} from "@grafana/schema";\n'
    + "".join(
        f'import type * as {kind} from "{_OPTIONS.format(folder=folder, kind=kind)}";\n'
        for folder, kind in _KINDS.items()
    )
    + "type Json<T> = T extends string ? `${T}`\n"
    "  : T extends object ? {[K in keyof T]: Json<T[K]>} : T;\n"
)
_COMPILE = ("--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext")


def faults(folder, dashboard):
    """Return what in a dashboard contradicts the types, a line for each; write it to `folder`."""
    found = os.environ.get("DUALPOOL_GRAFANA_SCHEMA")
    if not found:
        pytest.skip("set DUALPOOL_GRAFANA_SCHEMA; see .ci/get-grafana-schema")
    modules = Path(found) / "node_modules"
    (folder / "node_modules").symlink_to(modules)
    file = folder / "dashboard.ts"
    file.write_text(_HEAD + "".join(_checked(dashboard)))
    # Imports are looked for beside the file, not beside what the link leads to.
    command = (modules / ".bin" / "tsc", *_COMPILE, "--preserveSymlinks", file)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def _checked(dashboard):
    """Yield declarations that the compiler accepts if the dashboard is a valid one."""
    frame = {name: value for name, value in dashboard.items() if name != "panels"}
    yield _declaration("dashboard", "Dashboard", frame)
    for number, panel in enumerate(dashboard["panels"]):
        kind = _KINDS[panel["type"]]
        yield _declaration(f"panel{number}", "Panel", panel)
        # Of which the types of a panel say nothing; what is left out has a default.
        yield _declaration(f"options{number}", f"Partial<{kind}.Options>", panel["options"])
        if custom := panel["fieldConfig"]["defaults"].get("custom"):
            yield _declaration(f"custom{number}", f"{kind}.FieldConfig", custom)


def _declaration(name, kind, value):
    return f"const {name}: Json<{kind}> = {json.dumps(value)};\n"
