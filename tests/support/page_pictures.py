"""Pictures of the page for the README: `make screenshots`.

They show the page of a running service, http://127.0.0.1:8081/ unless another address is given: for
example of `dualpool demo --keep`.
"""

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.support.chromium import ARGUMENTS, find_chromium
from tests.support.paths import ROOT

PICTURES = {
    "page-light": (1280, 860, "light"),
    "page-dark": (1280, 860, "dark"),
    "page-phone": (390, 844, "light"),
    "page-phone-dark": (390, 844, "dark"),
}


def take_pictures(url: str, folder: Path) -> list[Path]:
    """Write a PNG file for each of PICTURES; return their paths."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        paths = []
        for name, (width, height, scheme) in PICTURES.items():
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page.goto(url)
            page.wait_for_selector("#traffic canvas")
            page.wait_for_function("document.querySelectorAll('#learnt tbody th').length")
            paths.append(folder / f"{name}.png")
            page.screenshot(path=paths[-1])
            page.close()
        browser.close()
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:8081/")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images")
    given = parser.parse_args()
    for path in take_pictures(given.url, given.folder):
        print(path)
