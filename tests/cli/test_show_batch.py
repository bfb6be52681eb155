"""The picture of a batch: it is what training sees, and what is written on it is readable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from kdjax import config as configs
from kdjax import methods, models
from kdjax.cli import batch_picture as show
from kdjax.cli import picture_sheet
from kdjax.data import augment, transformations
from kdjax.errors import UserError
from kdjax.methods import Method, base, hssakd_online, hssakd_student, hssakd_teacher
from kdjax.parallel import AXIS
from kdjax.runs import metrics
from kdjax.training import stages
from kdjax.training import step as training
from kdjax.training.building import build
from tests import tiny_runs as runs
from tests.tiny_runs import networks  # noqa: F401 (registers 'tiny')

ROWS = 8
PATTERN = np.arange(8 * 8 * 3).reshape(8, 8, 3) % 7 + 1


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return runs.write_arrays(tmp_path_factory.mktemp("data") / "tiny.npz", train=3 * ROWS)


def configured(source, **changes) -> configs.ConfigDict:
    """Two epochs of three steps; pixels are normalized to [0, 1]."""
    config = configs.cifar_run("cross_entropy", "digits,tiny", count=1)
    config.epochs, config.batch_size = 2, ROWS
    config.data.source, config.data.augmentation = source, "crop_flip"
    config.data.mean, config.data.std = (0.0,) * 3, (1.0,) * 3
    config.data.update(changes)
    return config


def settings(source, **changes) -> list[str]:
    return runs.settings(source, batch_size=ROWS, **changes)


# It is what training sees


def signature(pictures, labels):
    """`[R]`: a number that tells images, and their labels, from others; exact in float32."""
    return (pictures.astype(np.float32) * PATTERN).sum((1, 2, 3)) + labels


def watching() -> Method:
    """Makes images brighter at random; reports the signature of each row, times the step."""

    def inputs(batch, key):
        brighter = jax.random.randint(key, (len(batch["image"]), 1, 1, 1), 0, 60) / 255
        return base.plain_inputs(batch | {"image": batch["image"] + brighter}, key)

    def loss(params, model_state, batch, key):
        images, labels, _, _ = inputs(batch, key)
        levels = jnp.clip(jnp.rint(images * 255), 0, 255)
        seen = (batch["step"] + 1) * signature(levels, labels[:, 0])
        return params["w"] ** 2, (model_state, {f"row_{i}": x for i, x in enumerate(seen)})

    return Method(
        init=lambda key, images: ({"w": jnp.ones(())}, {}),
        loss=loss,
        predict=lambda params, state, images: {"network_0": jnp.zeros((len(images), runs.CLASSES))},
        inputs=inputs,
        variables=lambda params, state, index: {"params": params},
    )


def expected(config, step) -> np.ndarray:
    """What `watching` reports of a step, from what is shown of it."""
    rows = show.shown(config, step=step, limit=ROWS)
    assert rows.total == len(rows.captions) == ROWS
    return (step + 1) * signature(rows.pictures, np.asarray(rows.captions, np.float32))


def test_what_is_shown_is_what_the_loss_saw_in_training(monkeypatch, source, tmp_path):
    monkeypatch.setattr(methods, "create", lambda *args, **options: watching())
    config = configured(source)
    stages.train(config, tmp_path)
    epochs = metrics.read(tmp_path / "metrics.jsonl")
    for epoch, row in enumerate(epochs):
        seen = [row[f"train/row_{i}"] for i in range(ROWS)]
        steps = np.stack([expected(config, 3 * epoch + i) for i in range(3)])
        np.testing.assert_allclose(seen, steps.mean(0), rtol=1e-6)
        assert len(np.unique(steps)) == 3 * ROWS  # so that nothing else would do


def test_each_device_is_shown_what_it_saw(monkeypatch, source):
    monkeypatch.setattr(methods, "create", lambda *args, **options: watching())
    for count in ("device_count", "local_device_count"):
        monkeypatch.setattr(jax, count, lambda: 2)
    config, step = configured(source), 4
    run, method, tx = build(config), watching(), optax.sgd(0.1)
    one_step = training.train_step(method, tx, run.prepare, config.seed)
    mapped = jax.jit(jax.vmap(one_step, in_axes=(None, None, 0), axis_name=AXIS))
    state = training.init_state(method, tx, jax.random.key(0), run.image_shape)
    _, batches = next(run.feed.train(1, 1))
    _, seen = mapped(state._replace(step=jnp.int32(step)), run.feed.constants("train"), batches)
    rows = [seen[f"row_{i}"][0, 0] for i in range(ROWS // 2)]
    np.testing.assert_allclose(rows, expected(config, step).reshape(2, -1).mean(0), rtol=1e-6)


def test_of_a_streamed_set_the_same_is_shown(source):
    resident, streamed = (
        show.shown(configured(source, placement=placement), step=4, limit=ROWS)
        for placement in ("device", "stream")
    )
    assert streamed.captions == resident.captions
    np.testing.assert_array_equal(streamed.pictures, resident.pictures)


def test_the_first_rows_are_shown(source):
    config = configured(source)
    whole, some = (show.shown(config, step=1, limit=limit) for limit in (1000, 5))
    assert (len(whole.pictures), len(some.pictures)) == (ROWS, 5)
    assert some.total == ROWS and some.captions == whole.captions[:5]
    np.testing.assert_array_equal(some.pictures, whole.pictures[:5])


def test_pixels_are_as_before_normalization():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    mean, std = np.float32([0.1, 0.5, 0.9]), np.float32([0.3, 0.01, 1 / 255])
    normalized = np.asarray(augment.normalize(jnp.asarray(levels), mean, std))
    np.testing.assert_array_equal(show.pixels(normalized, mean, std), levels)
    beyond = show.pixels(np.float32([[[[-9.0]]], [[[9.0]]]]), np.float32([0.5]), np.float32([1]))
    assert beyond.ravel().tolist() == [0, 255] and beyond.dtype == np.uint8


class Seen(Exception):
    """Carries images out of a loss."""


@pytest.mark.parametrize("name", ["rotations", "both"])
@pytest.mark.parametrize("build", [hssakd_teacher, hssakd_student, hssakd_online])
def test_hssakd_shows_all_views(monkeypatch, build, name):
    chosen = transformations.create(name)
    network = models.hsakd_branches(models.create("tiny", num_classes=3), chosen.count)
    cohort = models.Cohort((network, network))
    more = () if build != hssakd_student else (network, {})
    options = {} if build == hssakd_teacher else {"temperature": 3.0}
    method = build(cohort, *more, transformations=chosen, **options)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    batch = {"image": images, "label": jnp.array([2, 0])}

    def stop(cohort, params, model_state, images):
        raise Seen(images)

    monkeypatch.setattr(base, "train_outputs", stop)
    with pytest.raises(Seen) as seen:
        method.loss({}, {}, batch, jax.random.key(0))
    shown = method.inputs(batch, jax.random.key(0))
    np.testing.assert_array_equal(shown.images, seen.value.args[0])
    texts = show.captions(shown, ("a", "b", "c"))
    assert texts == [f"{own}\n{view}" for own in "ca" for view in chosen.view_names]


# What is written on it


def test_captions():
    inputs = base.Inputs(
        images=None,
        labels=jnp.array([[0, 1], [1, 1], [0, 1], [1, 0]]),
        weights=jnp.array([[0.731, 0.269], [0.5, 0.5], [1.0, 0.0], [0.998, 0.002]]),
    )
    texts = ["cat: 0.73 + dog: 0.27", "dog: 0.50 + dog: 0.50", "cat", "dog: 1.00 + cat: 0.00"]
    assert show.captions(inputs, ("cat", "dog")) == texts
    noted = inputs._replace(notes=("one", "two", "three", "four"))
    assert show.captions(noted, ("cat", "dog"))[2] == "cat\nthree"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("cat", ["cat"]),
        ("cat: 0.73 + dog: 0.27", ["cat: 0.73", "+ dog: 0.27"]),
        ("3: 0.73 + 5: 0.27", ["3: 0.73", "+ 5: 0.27"]),
        ("polar bear: 0.73 + 5: 0.27", ["polar", "bear: 0.73", "+ 5: 0.27"]),
        ("dog\nrotation 90, RBG", ["dog", "rotation 90,", "RBG"]),
        ("a\n\nb", ["a", "", "b"]),
        ("supercalifragilistic", ["supercali..."]),
        ("supercalifragilistic: 0.73 + cat: 0.27", ["supercali...", "0.73", "+ cat: 0.27"]),
        ("cat: 0.73 + jellyfish: 0.27", ["cat: 0.73 +", "jellyfish:", "0.27"]),
        ("cat " * 50, ["cat cat cat"] * 4 + ["..."]),
    ],
)
def test_long_captions_are_broken(text, lines):
    assert picture_sheet.broken(text, 12, len) == lines


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (5, 5, 1), (12, 12, 1), (13, 12, 2), (72, 12, 6)]
)
def test_sheet_has_a_place_for_each_picture(count, columns, rows):
    pictures = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    page = np.asarray(picture_sheet.sheet(pictures, ["caption"] * count))
    height, width = page.shape[:2]
    down, across = (height - 8) // rows, (width - 8) // columns
    assert (height, width) == (8 + rows * down, 8 + columns * across)
    assert across == 128 + 8 and 128 + 8 + 10 < down < 128 + 8 + 30
    for place, picture in enumerate(pictures):
        top, left = 8 + place // columns * down, 8 + place % columns * across
        tile = page[top : top + 128, left : left + 128]
        np.testing.assert_array_equal(tile, picture.repeat(4, 0).repeat(4, 1))
        assert (page[top + 128 : top + down - 8, left : left + across] < 128).any()  # the text
    assert (page[:8] == 255).all() and (page[:, :8] == 255).all()
    assert (page[-8:] == 255).all() and (page[:, -8:] == 255).all()


@pytest.mark.parametrize(
    ("shape", "size"),
    [((8, 8, 1), (128, 128)), ((224, 224, 3), (224, 224)), ((20, 50, 3), (40, 100))],
)
def test_pictures_are_enlarged_by_whole_numbers(shape, size):
    picture = np.random.default_rng(0).integers(1, 250, (1, *shape)).astype(np.uint8)
    page = np.asarray(picture_sheet.sheet(picture, [""]))
    tile = page[8 : 8 + size[0], 8 : 8 + size[1]]
    scale = size[0] // shape[0]
    np.testing.assert_array_equal(tile[::scale, ::scale], picture[0] + np.zeros(3, np.uint8))
    assert (page[8 + size[0] :] == 255).all() and (page[:, 8 + size[1] :] == 255).all()


def test_more_channels_are_side_by_side():
    picture = np.stack([np.full((8, 8), level) for level in (10, 200)], axis=-1).astype(np.uint8)
    page = np.asarray(picture_sheet.sheet(picture[None], [""]))
    assert (page[8:72, 8:72] == 10).all() and (page[8:72, 72:136] == 200).all()


# The command line


def test_batch_as_a_picture(call, source, tmp_path):
    flags, file = settings(source), tmp_path / "there" / "batch.png"
    job = ("--job=show-batch", *flags, f"--workdir={file.parent}")
    status, output, errors = call(*job)
    assert (status, errors, output) == (0, [], f"step 0: 8 of 8 pictures: {file}\n")
    assert [path.name for path in file.parent.iterdir()] == ["batch.png"]
    first = np.asarray(Image.open(file))
    assert call(*job, "--step=5", "--pictures=3")[1].startswith("step 5: 3 of 8 pictures")
    assert np.asarray(Image.open(file)).shape == (first.shape[0], 8 + 3 * 136, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "kd", "teacher__network": "tiny"},
        {"method": "fitnet", "teacher__checkpoint": "/not/trained/yet"},
        {"method": "hssakd_student", "teacher__checkpoint": "/not/trained/yet"},
        {
            "method": "hssakd_student",
            "teacher__network": "tiny",
            "teacher__method": "hssakd_teacher",
        },
        {
            "method": "hssakd_teacher",
            "hssakd__freeze_backbone": True,
            "teacher__checkpoint": "/not/trained/yet",
            "evaluation__best": "network_0/branch1/joint/top1",
        },
    ],
)
def test_no_teacher_is_needed(call, source, tmp_path, changes):
    job = ("--job=show-batch", *settings(source, **changes), f"--workdir={tmp_path}")
    status, output, errors = call(*job)
    assert (status, errors) == (0, [])
    assert f" of {32 if 'hssakd' in changes['method'] else 8} pictures: " in output


@pytest.mark.parametrize(
    ("pattern", "flags"),
    [
        (r"--step=6: the run has steps 0\.\.5; use one of them, or more config\.epochs", "6"),
        ("--step=-1", "-1"),
        ("--pictures=0", "0 --pictures=0"),
        ("cannot be written: Not a directory", "0 --workdir=/dev/null/run"),
        ("config.method='mlc' is unknown", "0 --config.method=mlc"),
        ("'kd' needs a teacher itself", "0 --config.method=kd --config.teacher.method=kd"),
    ],
)
def test_what_cannot_be_shown(call, source, tmp_path, pattern, flags):
    job = ("--job=show-batch", *settings(source, teacher__network="tiny"))
    flags = f"--workdir={tmp_path} --step={flags}".split()
    with pytest.raises(UserError, match=pattern):
        refuse(call(*job, *flags))


def refuse(result):
    """Raises the error of a command line, if it is one line and the status is that of errors."""
    status, _, errors = result
    assert status == 2 and len(errors) == 1
    raise UserError(errors[0])


def test_a_config_is_needed(call, tmp_path):
    status, _, errors = call("--job=show-batch", f"--workdir={tmp_path}")
    assert status == 2 and errors[0].startswith("error: --config is missing; for instance")
