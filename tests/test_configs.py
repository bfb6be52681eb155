"""Every file of configs/ and the settings they share."""

import importlib.util
import itertools
import re

import ml_collections
import pytest

from kdjax import config as configs
from kdjax.errors import UserError
from tests.runs import ROOT

FILES = sorted((ROOT / "configs").glob("*.py"))
ARGUMENTS = [
    ",".join(parts)
    for parts in itertools.product(("cifar100", "cifar10", "digits"), ("", "wrn_16_2"), ("", "4"))
]


def load(path):
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flat(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@every_file
def test_default_is_locked_and_has_the_settings_of_base(path):
    config = load(path).get_config()
    assert config.is_locked
    assert set(flat(config)) == set(flat(configs.base()))
    with pytest.raises(AttributeError):
        config.no_such_setting = 1
    assert config.batch_size % max(config.data.images_per_class, 1) == 0


@every_file
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_documented_arguments(path, argument):
    config = load(path).get_config(argument)
    data, network, count = [*argument.split(","), "", ""][:3]
    assert config.data.source.endswith(data)
    assert not network or set(config.networks) == {network}
    assert not count or len(config.networks) == int(count)
    assert config.is_locked


@every_file
@pytest.mark.parametrize(
    "argument", ["cifar", "", "digits,,0", "digits,,x", "digits,,-1", "digits,resnet8,2,2"]
)
def test_other_arguments_are_refused(path, argument):
    with pytest.raises(UserError, match="--config"):
        load(path).get_config(argument)


@every_file
def test_docstring_has_commands_that_load(path):
    commands = re.findall(r"python -m kdjax\.main --config (\S+) --workdir \S+", load(path).__doc__)
    assert f"configs/{path.name}" in commands
    for command in commands:
        file, _, argument = command.partition(":")
        module = load(ROOT / file)
        assert file == f"configs/{path.name}"
        assert module.get_config(argument) if argument else module.get_config()


def test_differences_are_dotted_names():
    old, new = configs.plain(configs.base()), configs.plain(configs.base())
    assert configs.differences(old, new) == []
    new["batch_size"], new["mcl"]["alpha"] = 7, 5.0
    del new["dml"]
    assert configs.differences(old, new) == ["batch_size", "dml", "mcl.alpha"]


def test_resumable_settings_are_no_difference():
    old, new = configs.plain(configs.base()), configs.plain(configs.base())
    new |= {"epochs": 9, "steps_per_dispatch": 9, "parallel": "pmap"}
    new["evaluation"]["batch_size"], new["checkpoint"]["every_epochs"] = 9, 9
    new["data"]["workers"] = 9
    assert configs.differences(old, new) == []


def test_resumable_settings_exist():
    known = set(flat(configs.base())) | set(configs.base())
    assert set(configs.RESUMABLE) <= known


def test_plain_config_survives_json():
    config = configs.cifar_run("mcl", "digits", count=2)
    again = ml_collections.ConfigDict(configs.plain(config))
    assert configs.differences(configs.plain(config), configs.plain(again)) == []
