"""Sphinx's settings; `build.py` puts the pages together and calls Sphinx."""

import inspect
import re

import kdjax

project = "kdjax"
author = "The kdjax authors"
copyright = "The kdjax authors, Apache-2.0"
version = release = kdjax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"kdjax {release}"
root_doc = "index"
exclude_patterns = ["site"]

default_role = "code"  # docstrings have single backticks
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

_CODE = re.compile(r"(`[^`]*`)")


def restructured(app, what, name, obj, options, lines) -> None:
    """Makes reStructuredText of a docstring.

    Equations, indented paragraphs after a blank line, become literal blocks. Bars outside of
    backticks are only bars, and letters may follow backticks.
    """
    result, section, in_code = [], False, False
    for line in lines:
        indented = line.startswith("    ")
        if line and not line.startswith(" "):
            section = bool(re.fullmatch(r"[A-Z]\w+:", line))
        if indented and not section:
            before = next((text for text in reversed(result) if text.strip()), "")
            if not before.startswith("    "):
                result += ["::", ""]
            result.append(line)
            continue
        text, *rest = _CODE.split(line)  # text, code, text, code, ..., text
        escaped = text.replace("|", r"\|")
        for code, text in zip(rest[::2], rest[1::2], strict=True):
            plural = r"\ " if text[:1].isalnum() and not in_code else ""
            escaped += code + plural + text.replace("|", r"\|")
        result.append(escaped)
        in_code = bool(line.strip()) and in_code != bool(line.count("`") % 2)
    lines[:] = result


def skipped(app, what, name, obj, skip, options) -> bool | None:
    """Leaves out what Python says of a `NamedTuple`'s fields: the class's docstring has them."""
    return True if (inspect.getdoc(obj) or "").startswith("Alias for field number") else None


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skipped)
    app.connect("autodoc-process-docstring", restructured, priority=100)
