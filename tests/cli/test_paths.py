"""Paths of flags: `~` is the home directory, which shells do not see in `--workdir=~/run`."""

import pytest

from kdjax import networks
from kdjax.cli.command_line import parse
from kdjax.errors import UserError


def test_home_directory_of_flags(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    values = parse(["kdjax", "--job=export", "--workdir=~/run", "--output=~/out"])
    assert (values.workdir, values.output) == (f"{tmp_path}/run", f"{tmp_path}/out")
    assert parse(["kdjax", "--job=evaluate", "--workdir=a/~b"]).workdir == "a/~b"
    with pytest.raises(UserError, match="--workdir='~no_such_user/run': the home directory"):
        parse(["kdjax", "--job=evaluate", "--workdir=~no_such_user/run"])


def test_home_directory_of_networks(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"{tmp_path}/run"):
        networks.load("~/run")
