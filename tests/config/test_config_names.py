"""Installed configs by name, on the command line and in Python."""

import pytest

from kdjax import config_names, configs
from kdjax.cli.command_line import parse
from kdjax.configs import mcl
from kdjax.errors import UserError
from kdjax.main import import_path
from tests.tiny_runs import ROOT


def test_names_are_the_files_of_configs():
    assert config_names.names() == sorted(f.stem for f in (ROOT / "configs").glob("[!_]*.py"))


@pytest.mark.parametrize("form", [["--config=mcl:digits"], ["--config", "mcl:digits"]])
def test_a_name_gives_the_config_of_its_file_anywhere(form, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flags = [*form, "--workdir=run", "--config.epochs=3"]
    config = parse(["kdjax", *flags]).config
    expected = mcl.get_config("digits").unlock()
    expected.epochs = 3
    assert config.to_dict() == expected.to_dict()


def test_files_and_arguments_are_left_as_they_are(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sfp").write_text("")
    for value in ("my.py:arg", "mine/mcl.py", "configs/mcl.py:digits", "sfp:digits", "/a/mcl:x"):
        assert config_names.located(["kdjax", "--config", value])[2] == value
    file = f"{configs.__path__[0]}/distill.py"
    assert config_names.located(["", "--config=distill:kd,a:b"]) == ["", f"--config={file}:kd,a:b"]
    assert config_names.located(["", "--config.seed=mcl"]) == ["", "--config.seed=mcl"]


def test_other_names_are_refused_with_those_that_exist(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no config mlc; name a file, or one of asfp, .*, mcl, "):
        parse(["kdjax", "--config=mlc:digits", "--workdir=run"])
    with pytest.raises(UserError, match=r"mlc\.py.* or one of asfp, .*, mcl, "):
        parse(["kdjax", "--config=mlc.py", "--workdir=run"])


@pytest.mark.parametrize("where", ["mcl", f"{ROOT}/configs/mcl.py"])
def test_what_a_config_refuses_is_one_line(where):
    with pytest.raises(UserError, match=r"^unknown data set 'nope' in --config; choose from"):
        parse(["kdjax", f"--config={where}:nope", "--workdir=run"])


def test_a_name_adds_no_directory_to_the_import_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = [str(tmp_path), "/lib/python"]
    assert import_path(path, ["kdjax", "--config=mcl:digits"]) == ["/lib/python"]
