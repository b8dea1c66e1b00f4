"""Every link of the documentation leads somewhere, and every path that it names is there."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.unit.docs.pages import PAGES, ROOT, inline, name_of, prose

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"(?:docs|charts|examples|manifests|tests|bench|operator)/[\w./-]*\w/?")


@cache
def _anchors(page: Path) -> set[str]:
    """The headings' anchors, as GitHub makes them."""
    found: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        again = found.get(slug, 0)
        found[slug] = again + 1
        anchors.add(f"{slug}-{again}" if again else slug)
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_resolves(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_of_the_repository_is_there(page: Path) -> None:
    for text in inline(page):
        if _PATH.fullmatch(text):
            assert (ROOT / text).exists(), text


def test_every_page_is_linked_to_from_another() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in _LINK.findall(prose(page))
    }
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert {name_of(page) for page in pages - linked} == set()
