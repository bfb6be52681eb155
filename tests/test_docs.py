"""Every Python block of recipes.md and transfer.md runs; tables are as computed."""

from __future__ import annotations

import pathlib
import re

import pytest

from kdjax import models
from kdjax.interop.names.constructors import CONSTRUCTORS
from kdjax.losses import loss_table
from kdjax.methods import method_table as table
from tests import tiny_runs as runs

RECIPES = pathlib.Path(__file__).parent.parent / "docs" / "recipes.md"
PAGES = (RECIPES, RECIPES.with_name("transfer.md"))


def blocks() -> list:
    """The blocks, named by their headings, padded so that their lines have the file's numbers."""
    code = []
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            before = text[: match.start(1)]
            heading = re.findall(r"^## (.*)", before, re.MULTILINE)[-1]
            padded = "\n" * before.count("\n") + match[1]
            code.append(pytest.param(page, padded, id=f"{page.stem}: {heading}"))
    return code


@pytest.mark.parametrize(("page", "code"), blocks())
def test_recipe(page, code):
    program = compile(code, str(page), "exec", dont_inherit=True)
    exec(program, {"__name__": "recipe"})


def test_every_network_has_a_counterpart():
    assert set(CONSTRUCTORS) == set(models.names()) - {"tiny", "tiny_four"}  # of tests


def test_tables_of_methods_are_up_to_date():
    page = (RECIPES.parent / "methods.md").read_text()
    assert page.endswith(table.markdown()), "put what --job=methods prints into docs/methods.md"
    readme = (RECIPES.parent.parent / "README.md").read_text()
    between = readme.split("<!-- methods -->\n")[1]
    assert between == table.families(), "put kdjax.methods.method_table.families() into README.md"


def test_tables_of_losses_are_up_to_date():
    page = (RECIPES.parent / "losses.md").read_text()
    assert page.endswith(loss_table.markdown()), "put what --job=losses prints into docs/losses.md"


@pytest.mark.slow
def test_table_of_networks_is_up_to_date():
    (printed,) = runs.finish(runs.start("--job=networks", module="kdjax.main"))
    page = (RECIPES.parent / "networks.md").read_text()
    assert page.endswith(printed), "put what --job=networks prints at the end of docs/networks.md"
