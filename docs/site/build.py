"""The documentation as a site: `python docs/site/build.py DIRECTORY` writes DIRECTORY/html.

The pages are those of docs/ and, from docstrings, a reference of the public modules. Warnings are
errors. Needs the extra `docs`.
"""

import importlib
import inspect
import re
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

SITE = Path(__file__).resolve().parent
DOCS = SITE.parent
sys.path.insert(0, str(DOCS.parent))  # this checkout's kdjax, whichever is installed
import kdjax  # noqa: E402

# The public modules: what stands in their `__all__`, otherwise what they define.
MODULES = (
    "kdjax",
    "kdjax.losses",
    "kdjax.pruning",
    "kdjax.compaction",
    "kdjax.networks",
    "kdjax.models",
    "kdjax.methods",
    "kdjax.data",
    "kdjax.config",
    "kdjax.settings",
    "kdjax.registry",
    "kdjax.transfer",
    "kdjax.segmentation",
    "kdjax.detection",
    "kdjax.interop.torch",
    "kdjax.interop.export",
    "kdjax.interop.published",
    "kdjax.numerics",
    "kdjax.errors",
)

_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def without_links_outside(text: str) -> str:
    """A page whose links to files outside of docs/ are their texts."""

    def replaced(link: re.Match) -> str:
        return link[1] if link[2].startswith("../") else link[0]

    return _LINK.sub(replaced, text)


def linked_pages(text: str) -> list[str]:
    """The pages that the index links to, in its order."""
    return [Path(link).stem for _, link in _LINK.findall(text) if re.fullmatch(r"\w+\.md", link)]


def reference(module: str) -> str:
    """The page of a public module; that of kdjax has its functions, other pages its modules."""
    title = f"{module}\n{'=' * len(module)}\n\n"
    if module == "kdjax":
        public = (name for name in kdjax.__all__ if inspect.isroutine(getattr(kdjax, name)))
        functions = "".join(f"\n.. autofunction:: kdjax.{name}\n" for name in public)
        return f"{title}.. automodule:: kdjax\n{functions}"
    imported = (
        "   :imported-members:\n" if hasattr(importlib.import_module(module), "__all__") else ""
    )
    return f"{title}.. automodule:: {module}\n   :members:\n{imported}"


def write_pages(source: Path) -> None:
    """The pages of docs/, the index with its tree, and the reference.

    Raises:
      ValueError: a page that the index does not name.
    """
    source.mkdir(parents=True)
    for page in DOCS.glob("*.md"):
        (source / page.name).write_text(without_links_outside(page.read_text()))
    index = (source / "index.md").read_text()
    pages = linked_pages(index)
    missing = {page.stem for page in DOCS.glob("*.md")} - {"index", *pages}
    if missing:
        raise ValueError(f"docs/index.md does not name {', '.join(sorted(missing))}")
    entries = "\n".join([*pages, *(f"reference/{module}" for module in MODULES)])
    (source / "index.md").write_text(f"{index}\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n")
    (source / "reference").mkdir()
    for module in MODULES:
        (source / "reference" / f"{module}.rst").write_text(reference(module))


def main(directory: str) -> int:
    """Builds the site; returns Sphinx's exit status."""
    source, html = Path(directory) / "source", Path(directory) / "html"
    for old in (source, html):
        shutil.rmtree(old, ignore_errors=True)
    write_pages(source)
    return sphinx(["-q", "-W", "--keep-going", "-c", str(SITE), str(source), str(html)])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
