"""`make docs`, as it builds."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from deploy import docs, reference

pytestmark = [pytest.mark.component, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("docs") / "site"
    done = docs.build(target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


class Asked(HTMLParser):
    """What a browser fetches by itself when it shows the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get("href") or "")


def test_each_topic_has_its_page_with_its_names_and_their_docstrings(site: Path) -> None:
    for title, names in reference.PAGES.items():
        page = (site / reference.path_of(title)).with_suffix(".html").read_text()
        assert all(f'id="trainyard.{name}"' in page for name in names), title
    assert "sent with its SHA-256 digests" in (site / "reference" / "models.html").read_text()


def test_readme_and_docs_are_pages_of_it(site: Path) -> None:
    assert "Two commands" in (site / "index.html").read_text()
    assert all((site / f"{page.stem}.html").is_file() for page in (docs.REPO / "docs").glob("*.md"))


def test_no_page_asks_another_host_for_anything(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    styles = "".join(path.read_text() for path in site.rglob("*.css"))

    asked = [address for page in pages for address in Asked(page.read_text()).addresses]
    assert len(pages) > len(reference.PAGES)
    assert [address for address in asked if "//" in address] == []
    assert "url(http" not in styles and "@import" not in styles
