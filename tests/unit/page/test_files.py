"""The page's static files."""

import re

import pytest

from extproc.page.files import SECURITY_HEADERS, read_files

FILES = read_files()
PAGE = FILES["/"].content.decode()


@pytest.mark.parametrize("path", re.findall(r'(?:src|href)="(/page/[^"]+)"', PAGE))
def test_what_the_page_loads_is_served(path):
    assert FILES[path].content


def test_nothing_is_loaded_from_elsewhere():
    for path, file in FILES.items():
        if "uplot" not in path:
            found = re.findall(r"(?:https?:)?//[\w.]+", file.content.decode())
            assert set(found) <= {"http://www.w3.org"}, path  # the name space of SVG


def test_nothing_is_inline():
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|javascript:", PAGE)


def test_the_page_writes_no_html():
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(",
                         FILES["/page/page.js"].content.decode())  # fmt: skip


def test_the_policy_permits_nothing_but_its_own():
    policy = SECURITY_HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "*" not in policy
