"""The installed Chromium, for tests of the page."""

import shutil

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium():
    """Return the path of Chromium; None without one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")
