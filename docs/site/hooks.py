"""What the site's build adds: generated pages, and paths in place of links that leave docs/.

The pages are also read in the repository, where these links lead to the files.
"""

import posixpath
import re
import sys
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "site")]

import reference  # noqa: E402 - beside this file

# Images too, which are in docs/.
_README_LINK: Final = re.compile(r"\]\((?!http|#)([^)]+)\)")
_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the decisions to the navigation."""
    pages = ["index.md", *(path.name for path in _decisions())]
    config.nav.append({"Decisions": [f"decisions/{name}" for name in pages]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the first page, which is the README, and the generated ones."""
    own = {"index.md": _readme(), "decisions/index.md": _list_of_decisions()}
    for path, text in (own | reference.pages()).items():
        files.append(File.generated(config, path, content=text))
    return files


def _decisions() -> list[Path]:
    return sorted((ROOT / "docs" / "decisions").glob("*.md"))


def _list_of_decisions() -> str:
    titles = {p.name: p.read_text("utf-8").partition("\n")[0].lstrip("# ") for p in _decisions()}
    return "# Decisions\n\n" + "\n".join(f"- [{title}]({n})" for n, title in titles.items())


def _readme() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return _README_LINK.sub(lambda found: f"]({posixpath.relpath(found[1], 'docs')})", text)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Write links that lead out of docs/ as the path of the file."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def replace(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[2]))
        if target.startswith("docs/"):
            return found[0]
        if not (ROOT / target).exists():
            raise ValueError(f"{page.file.src_uri}: no such file: {found[2]}")
        named = target in found[1] or Path(target).name in found[1]
        return found[1] if named else f"{found[1]} (`{target}`)"

    return _LINK.sub(replace, markdown).replace("](decisions)", "](decisions/index.md)")
