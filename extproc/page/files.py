"""The page's static files, and the headers that keep a browser from running anything else."""

from dataclasses import dataclass
from pkgutil import get_data
from typing import Final, cast

SECURITY_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    "/page/page.js": ("page.js", "text/javascript"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
    # From the npm package uplot 1.6.32, unchanged; its licence (MIT) is beside it.
    "/page/uplot.css": ("uplot/uPlot.min.css", "text/css"),
    "/page/uplot.js": ("uplot/uPlot.iife.min.js", "text/javascript"),
}


@dataclass(frozen=True, slots=True)
class File:
    """One file; the text is UTF-8."""

    content: bytes
    content_type: str


def read_files() -> dict[str, File]:
    """Return the files by the path that they are served at."""
    return {
        path: File(cast("bytes", get_data("extproc.page", f"static/{name}")), kind)
        for path, (name, kind) in _FILES.items()
    }
