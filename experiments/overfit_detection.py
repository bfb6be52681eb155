"""Overfits a small detector to a few images: whether all parts of detection fit together.

    python -m experiments.overfit_detection --images DIR --labels DIR --classes 80 --workdir DIR

Reads YOLO's text files, trains from random weights without augmentation, and prints COCO's measures
of the same images. State and pictures of detections are written to the workdir; another call goes
on from there. A few minutes
per hundred steps on one core.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from kdjax.data.order import epoch_order
from kdjax.detection import batches, detection
from kdjax.detection.annotations import AnnotatedSet
from kdjax.detection.augmentation import Augmentation, scale
from kdjax.detection.average_precision import Detected, Objects
from kdjax.detection.coco_precision import CocoResult, coco
from kdjax.detection.detector import Detector, held
from kdjax.detection.drawing import draw
from kdjax.detection.regions import Truths
from kdjax.detection.settings import Detection
from kdjax.detection.yolo_text import read_yolo
from kdjax.models import BatchNorm, ImageNetResNet

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SETTINGS = Detection(
    trained_stages=5,
    train_candidates=256,
    train_proposals=128,
    test_candidates=256,
    test_proposals=128,
    anchor_samples=128,
    region_samples=64,
)
ANCHORS = ((8,), (16,), (32,), (64,), (128,))
BATCH = 8


def build(num_classes: int) -> Detector:
    """A ResNet-18 and a pyramid of a quarter of their widths."""
    network = ImageNetResNet(1, widths=(16, 32, 64, 128), stem_width=16)
    return Detector(network, num_classes, sizes=ANCHORS, features=64, hidden=256)


def initial(detector: Detector, images: jax.Array) -> dict[str, Any]:
    """Variables whose BatchNorm layers, which do not learn, have the statistics of the images."""
    variables = jax.jit(detector.init)(jax.random.key(0), images[:1])
    network = detector.network.clone(parent=None)
    start = variables["batch_stats"]["network"]

    @jax.jit
    def update(params, statistics, images):
        own = {"params": params, "batch_stats": statistics}
        _, changed = network.apply(own, images, train=True, stop=4, mutable=["batch_stats"])
        return changed["batch_stats"]

    moved = update(variables["params"]["network"], start, images)
    kept = BatchNorm.momentum  # of the statistics, by one step
    statistics = jax.tree.map(lambda old, new: (new - kept * old) / (1 - kept), start, moved)
    return {"params": variables["params"], "batch_stats": {"network": statistics}}


def train_step(detector: Detector, tx: optax.GradientTransformation):
    """`(params, opt_state, batch_stats, batch, step) -> params, opt_state, loss`."""

    def total(params, batch_stats, batch, step):
        key = jax.random.fold_in(jax.random.key(1), step)
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
        variables = {"params": held(params, SETTINGS.trained_stages), "batch_stats": batch_stats}
        truths = Truths(batch["boxes"], batch["label"], batch["valid"])
        terms = detection.losses(
            detector, variables, batch["image"], batch["size"], truths, keys, SETTINGS
        )
        return sum(terms.values())

    @jax.jit
    def step(params, opt_state, batch_stats, batch, step):
        loss, gradients = jax.value_and_grad(total)(params, batch_stats, batch, step)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return step


def detect_all(detector: Detector, variables: Any, rows) -> list[Detected]:
    """The detections in every image, in the pixels that the detector sees."""
    detect = jax.jit(
        lambda variables, images, sizes: detection.detections(
            detector, variables, images, sizes, SETTINGS
        )
    )
    detected = []
    for batch in rows:
        made = jax.device_get(detect(variables, batch["image"], batch["size"]))
        for i, index in enumerate(batch["index"]):
            real = made.valid[i]
            number = np.full(int(real.sum()), index)
            boxes, scores = made.boxes[i][real], made.scores[i][real]
            detected.append(Detected(number, made.labels[i][real] - 1, boxes, scores))
    return detected


def evaluate(detected: list[Detected], data: AnnotatedSet, side: int) -> CocoResult:
    """COCO's measures of the images themselves, at the size at which the detector sees them."""
    objects = []
    for index, item in enumerate(data.images):
        pixels = np.zeros((item.height, item.width, 1), np.float32)
        _, boxes = scale(pixels, item.boxes, side, side)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        number = np.full(len(boxes), index)
        objects.append(Objects(number, item.labels - 1, boxes, areas, item.ignored))
    joined = (
        kind(*map(np.concatenate, zip(*parts, strict=True)))
        for kind, parts in ((Objects, objects), (Detected, detected))
    )
    return coco(*joined, len(data.class_names))


def main() -> None:
    """Trains, writes the state, and prints AP50."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--names", help="file with the names of the classes, one a line")
    parser.add_argument("--count", type=int, default=16, help="how many images, the first ones")
    parser.add_argument("--side", type=int, default=160, help="longest side of an image in pixels")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seconds", type=float, default=300, help="of this call")
    flags = parser.parse_args()
    started = time.time()

    data = read_yolo(flags.images, flags.labels, [str(i) for i in range(flags.classes)])
    data = data._replace(images=data.images[: flags.count])
    whole = Augmentation(crop=1, flip=0, min_sizes=(flags.side,), max_size=flags.side)
    read = functools.partial(
        batches.batches, data, settings=whole, mean=MEAN, std=STD, seed=0, epoch=0,
        objects=batches.most_objects(data),
    )  # fmt: skip
    (everything,) = read(order=np.arange(flags.count)[None])

    detector = build(flags.classes)
    tx = optax.adam(optax.cosine_decay_schedule(2e-3, flags.steps))
    variables = initial(detector, jnp.asarray(everything["image"]))
    params, statistics = variables["params"], variables["batch_stats"]
    state = {"params": params, "opt_state": tx.init(params), "step": 0}
    file = flags.workdir / "state.msgpack"
    if file.exists():
        state = flax.serialization.from_bytes(state, file.read_bytes())

    advance = train_step(detector, tx)
    order = (
        indices
        for epoch in itertools.count()
        for indices in epoch_order(np.zeros(flags.count, np.int32), seed=0, epoch=epoch,
                                   batch_size=BATCH)
    )  # fmt: skip
    params, opt_state = state["params"], state["opt_state"]
    step = int(state["step"])
    for indices in itertools.islice(order, step, flags.steps):
        batch = {name: value[indices] for name, value in everything.items()}
        params, opt_state, loss = advance(params, opt_state, statistics, batch, step)
        step += 1
        if step % 20 == 0:
            print(f"step {step}: loss {loss:.4f}, {time.time() - started:.0f} s", flush=True)
        if time.time() - started > flags.seconds:
            break
    flags.workdir.mkdir(parents=True, exist_ok=True)
    state = {"params": params, "opt_state": opt_state, "step": step}
    file.write_bytes(flax.serialization.to_bytes(state))
    rows = [
        {name: value[start : start + BATCH] for name, value in everything.items()}
        for start in range(0, flags.count, BATCH)
    ]
    detected = detect_all(detector, {"params": params, "batch_stats": statistics}, rows)
    result = evaluate(detected, data, flags.side)
    names = Path(flags.names).read_text().split("\n") if flags.names else data.class_names
    for index, found in enumerate(detected):
        height, width = everything["size"][index]
        pixels = everything["image"][index, :height, :width] * STD + MEAN
        picture = draw(np.clip(255 * pixels, 0, 255).astype(np.uint8), found, names, scale=3)
        Image.fromarray(picture).save(flags.workdir / f"image_{index}.png")
    print(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in result.stats.items()))


if __name__ == "__main__":
    main()
