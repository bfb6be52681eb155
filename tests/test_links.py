"""Links between pages lead somewhere, and pages name modules and numbers that are true."""

from __future__ import annotations

import importlib.util
import re

import pytest

from kdjax import models
from tests.tiny_runs import ROOT

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "experiments/**/*.md", ".github/**/*.md")
    for page in ROOT.glob(pattern)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
RESULTS = ROOT / "experiments" / "results"


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = []
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def test_commands_of_the_results_name_modules_that_exist():
    text = (RESULTS / "README.md").read_text()
    modules = set(re.findall(r"(?<![\w.])experiments(?:\.\w+)+", text))
    assert len(modules) > 10
    assert [name for name in sorted(modules) if importlib.util.find_spec(name) is None] == []


def test_the_page_of_results_names_all_of_them():
    text = (RESULTS / "README.md").read_text()
    pages = [path.name for path in RESULTS.iterdir() if path.name != "README.md"]
    assert [name for name in pages if f"]({name}" not in text] == []


def test_the_index_of_the_site_names_all_pages():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.stem != "index")
    assert pages == sorted(link for link in LINK.findall(index) if not link.startswith("../"))


def test_the_number_of_networks_in_the_readme():
    (number,) = re.findall(r"(\d+) in all, from", (ROOT / "README.md").read_text())
    assert int(number) == len(set(models.names()) - {"tiny", "tiny_four"})  # of tests
