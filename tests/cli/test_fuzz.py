"""Command lines with random flags and settings: checked whole, or refused in one line."""

import random

import pytest
from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.cli import flags, jobs
from kdjax.training import checks, stages
from tests.tiny_runs import ROOT

_FILES = ("cross_entropy.py:digits", "mcl.py:digits", "distill.py:kd,digits", "hfp.py:digits")
_NUMBERS = (
    *("0", "-1", "1", "1.5", "nan", "inf", "-inf", "1e999", "1e-60", "1e300", "0.99999999999"),
    *(str(2**31), str(2**70), "1" + 400 * "0", 5000 * "1", "0x10", "1_000", "²", "٣", " 1 ", "+1"),
)
_TEXTS = (
    *("", "None", "true", "x", "'", "a\nb", "é", "~", "~nobody/x", "..", "/", "{}", "[]", "()"),
    *("(1,", "(1, 2)", "('a',)", "(None,)", "((1,),)", "1is 2", "(1)(2)", "'\\d'", "lambda: 0"),
    *("a\0b", 999 * "(", "resnet8", "('resnet8', 'resnet8')", "network_0/top1", "tfds:", "arrays:"),
    *("folder:\0", "tfds:../../x", "resnet20_aux99999999999999999999", "vgg8_aux-1", "cutout"),
)
_ARGUMENTS = (
    "",
    ",",
    ",,,,",
    "digits",
    "cifar100",
    "kd",
    "kd,digits",
    "a" * 300,
    "digits,resnet8,0",
)


def names(section: ConfigDict, prefix: str = "config") -> list[str]:
    """The flags of all settings."""
    found = []
    for name, value in section.items():
        path = f"{prefix}.{name}"
        found += names(value, path) if isinstance(value, ConfigDict) else [path]
    return found


def command_line(draw: random.Random, settings: list[str]) -> list[str]:
    """A config, most often, and one to three settings or flags with values of any kind."""
    file = draw.choice(_FILES)
    if draw.random() < 0.1:
        file = f"{file.partition(':')[0]}:{draw.choice((*_ARGUMENTS, *_TEXTS))}"
    arguments = [f"--config={ROOT}/configs/{file}", "--workdir=/no/such/directory"]
    every = [flag.name for job in jobs.JOBS.values() for flag in (*job.flags, *flags.COMMON)]
    every = sorted(set(every) - {"distributed", "debug", "config"})
    for _ in range(draw.randint(1, 3)):
        name = draw.choice(settings) if draw.random() < 0.8 else draw.choice(every)
        arguments.append(f"--{name}={draw.choice((*_NUMBERS, *_TEXTS))}")
    if draw.random() < 0.1:
        arguments.append(
            f"--job={draw.choice([name for name in jobs.JOBS if name != 'show-batch'])}"
        )
    return arguments


@pytest.fixture
def checked_only(monkeypatch):
    """Training ends after the check of the config."""

    def check(config, workdir, **options):
        del workdir, options
        checks.check(config)
        return {"mean/top1": 0.0}

    monkeypatch.setattr(stages, "train", check)


def test_command_lines_are_checked_or_refused(call, checked_only):
    draw, settings, refused = random.Random(0), names(configs.base()), 0
    for _ in range(200):
        arguments = command_line(draw, settings)
        status, _, errors = call(*arguments)
        assert (status, len(errors)) in ((0, 0), (2, 1)), arguments
        refused += status == 2
    assert 60 < refused < 200
