"""Networks keep what their images were normalized with, wherever they go."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import data, losses, methods
from kdjax.cli.main import parse
from kdjax.errors import UserError
from kdjax.networks import (
    NAMED,
    InputSpec,
    Normalization,
    load,
    renormalization,
    save,
)
from kdjax.networks.normalization import from_flags
from kdjax.training import evaluation, stages
from kdjax.training.building import build
from tests import tiny_runs as runs
from tests.networks import saved
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

OTHER = Normalization((0.3, 0.4, 0.6), (0.1, 0.2, 0.4))
PIXELS = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)


def normalized(pixels, normalization):
    mean, std = (np.asarray(values, np.float32) for values in normalization)
    return (pixels - mean) / std


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz")


def test_images_are_brought_to_another_normalization():
    renormalize = jax.jit(renormalization(NAMED["imagenet"], OTHER))
    images = renormalize(normalized(PIXELS, NAMED["imagenet"]))
    np.testing.assert_allclose(images, normalized(PIXELS, OTHER), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pair", [(OTHER, OTHER), (None, OTHER), (OTHER, None)])
def test_equal_or_unknown_normalizations_change_nothing(pair):
    assert renormalization(*pair)(PIXELS) is PIXELS


def test_other_numbers_of_channels():
    with pytest.raises(UserError, match="other numbers of channels"):
        renormalization(OTHER, Normalization((0.5,), (0.5,)))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("", ""), None),
        (("imagenet", ""), NAMED["imagenet"]),
        (("half", "half"), NAMED["half"]),
        (("0.5", "0.25"), Normalization((0.5,), (0.25,))),
        (("(0.1,0.2)", "1,2"), Normalization((0.1, 0.2), (1.0, 2.0))),
    ],
)
def test_flags(flags, expected):
    assert from_flags(*flags) == expected


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        (("0.5", ""), "--mean without --std"),
        (("", "half"), "--std without --mean"),
        (("1" + 400 * "0", "1"), "give a number per channel"),
        (("1e300", "1"), "must be finite, and std above 0"),
        (("0.5", "1e-60"), "must be finite, and std above 0"),
        (("imagnet", "1"), r"--mean=imagnet: give a number per channel.*imagenet\|cifar10"),
        (("1,2", "1"), "one number per channel each"),
        (("1", "0"), "std above 0"),
        (("1", "1e999"), "must be finite"),
    ],
)
def test_flags_that_say_nothing(flags, pattern):
    with pytest.raises(UserError, match=pattern):
        from_flags(*flags)


TEACHERS = [
    ("kd", "tiny", "rotations"),
    ("hssakd_student", "tiny_aux", "rotations"),
    ("hssakd_student", "tiny_aux6", "color_permutations"),
]


@pytest.mark.parametrize(("method", "name", "views"), TEACHERS)
def test_a_teacher_sees_images_in_its_own_normalization(tmp_path, monkeypatch, method, name, views):
    """Its logits in training are those of its own normalized pixels, views made after that."""
    teacher = saved.network(name, 5, InputSpec((8, 8), 3, OTHER))
    save(tmp_path, teacher, {})
    config = configs.base()
    config.method, config.networks = method, ("tiny",)
    config.hssakd.transformations = views
    config.teacher.checkpoint = str(tmp_path)
    images = InputSpec((8, 8), 3, NAMED["half"])
    made = methods.create(config, num_classes=5, axis_name=None, images=images)

    loss, first = getattr(losses, method), {"kd": 1, "hssakd_student": 3}[method]
    seen = []

    def recorded(*arguments, **options):
        jax.debug.callback(seen.append, jax.tree.leaves(arguments[first:]))
        return loss(*arguments, **options)

    monkeypatch.setattr(losses, method, recorded)
    params, state = jax.jit(made.init)(jax.random.key(0), PIXELS)
    batch = {"label": np.arange(4), "index": np.arange(4), "step": np.int32(0)}
    batch["image"] = normalized(PIXELS, NAMED["half"])
    jax.block_until_ready(jax.jit(made.loss)(params, state, batch, jax.random.key(0)))
    jax.effects_barrier()

    own = normalized(PIXELS, OTHER)
    if method == "hssakd_student":
        own = data.transformations.create(views).rows(own)
    outputs = jax.jit(teacher.module().apply)(teacher.variables, own)
    branches = getattr(outputs, "branches", {}).values()
    backbone = getattr(outputs, "backbone", outputs)
    expected = [each.logits for each in (backbone, *branches)]
    found = seen[-1]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_run_goes_on_in_the_normalization_of_its_start(source, tmp_path):
    """In training, resumed without its start, and evaluated; its network keeps it."""
    config = flags_config(source, epochs=1)
    save(tmp_path / "start", saved.network("tiny", runs.CLASSES, InputSpec((8, 8), 3, OTHER)), {})
    config.start.checkpoint = str(tmp_path / "start")
    stages.train(config, tmp_path / "run")
    assert load(tmp_path / "run", checkpoint="latest").spec.input.normalization == single(OTHER)
    config.start.checkpoint, config.epochs = "", 2
    metrics = stages.train(config, tmp_path / "run")
    assert load(tmp_path / "run", checkpoint="latest").spec.input.normalization == single(OTHER)
    run = evaluation.load_run(tmp_path / "run")
    found = evaluation.evaluate(run, checkpoint="latest")
    assert found["network_0/cross_entropy"] == pytest.approx(metrics["network_0/cross_entropy"])
    network = load(tmp_path / "run", checkpoint="latest")
    found = evaluation.evaluate_network(flags_config(source), network)
    assert found["network_0/cross_entropy"] == pytest.approx(metrics["network_0/cross_entropy"])


def test_a_frozen_backbone_keeps_its_normalization(source, tmp_path):
    save(tmp_path / "own", saved.network("tiny", runs.CLASSES, InputSpec((8, 8), 3, OTHER)), {})
    config = flags_config(source, method="hssakd_teacher")
    config.hssakd.freeze_backbone = True
    config.evaluation.best = "network_0/branch2/joint/top1"
    config.teacher.checkpoint = str(tmp_path / "own")
    program = build(config)
    assert program.specs[0].input.normalization == single(OTHER)
    assert program.metadata["networks"][0]["places"] == {
        "params/branch1": "params/cohort/network_0/branch1",
        "params/branch2": "params/cohort/network_0/branch2",
        "params/backbone": "model_state/constants/backbone/params",
        "batch_stats/branch1": "model_state/batch_stats/network_0/branch1",
        "batch_stats/branch2": "model_state/batch_stats/network_0/branch2",
        "batch_stats/backbone": "model_state/constants/backbone/batch_stats",
    }


def test_a_normalization_that_contradicts_the_start(source, tmp_path):
    save(tmp_path / "start", saved.network("tiny", runs.CLASSES, InputSpec((8, 8), 3, OTHER)), {})
    config = flags_config(source)
    config.start.checkpoint = str(tmp_path / "start")
    config.data.mean, config.data.std = OTHER
    assert build(config).specs[0].input.normalization == single(OTHER)
    config.data.mean = (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match=r"config\.data\.mean and .* trained with, mean \(0\.3,"):
        build(config)
    gray = Normalization((0.5,), (0.5,))
    with pytest.raises(UserError, match="takes images of 1 channels"):
        build(flags_config(source), normalization=gray)


def flags_config(source, **changes):
    config = parse(["kdjax", *runs.settings(source, **changes), "--workdir=unused"]).config
    return config.unlock()


def single(normalization):
    """As float32 has it."""
    mean, std = (tuple(np.asarray(each, np.float32).tolist()) for each in normalization)
    return Normalization(mean, std)
