"""What the package says of itself, in the files that need it twice."""

import configparser
import re

import kdjax
from tests.tiny_runs import ROOT


def test_citation_has_the_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == kdjax.__version__


def test_the_console_script_is_a_function_and_types_are_declared():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split()
    assert scripts == ["kdjax", "=", "kdjax.main:command"]
    assert (ROOT / "kdjax" / setup["options.package_data"]["kdjax"]).is_file()


def test_configs_of_the_package_are_those_of_the_checkout():
    assert (ROOT / "kdjax" / "configs").resolve() == (ROOT / "configs").resolve()
