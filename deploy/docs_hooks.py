"""mkdocs's hooks: the README is the front page, and the reference's pages are made from their table. Runs in the docs' own environment."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from deploy import reference  # noqa: E402

# From the front page and the pages below docs/ to what is no page: shown as text, since there is no web address to lead to.
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    pages = {"index.md": front_page((REPO / "README.md").read_text("utf-8"))}
    pages |= {reference.path_of(title): reference.page(title) for title in reference.PAGES}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Pages below docs/ lead to code as well: on the site those links are text. A link to a page that is not there stays, and is reported."""
    source = Path(page.file.src_uri).parent
    return markdown if page.file.src_uri == "index.md" else without_code(markdown, REPO / "docs" / source)


def without_code(markdown: str, folder: Path) -> str:
    """The text with each link that leads out of docs/ replaced by its own words."""

    def seen(found: re.Match[str]) -> str:
        text, target = found.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return found.group()
        inside = (folder / target.partition("#")[0]).resolve().is_relative_to(REPO / "docs")
        return found.group() if inside else text

    return _LINK.sub(seen, markdown)


def front_page(readme: str) -> str:
    """The README with its links as they are seen from docs/."""

    def seen(found: re.Match[str]) -> str:
        text, target = found.groups()
        if "://" in target or target.startswith("#"):
            return found.group()
        inside = target.removeprefix("docs/")
        if inside == target:
            return text
        return f"[{text}]({inside}README.md)" if inside.endswith("/") and (REPO / target / "README.md").is_file() else _page(text, inside)

    return _LINK.sub(seen, readme)


def _page(text: str, inside: str) -> str:
    return f"[{text}]({inside})" if (REPO / "docs" / inside).is_file() else text
