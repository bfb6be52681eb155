"""HSSAKD's student step in kdjax, whole and in two parts: one side of `hssakd_step.py`.

The parts are programs of their own: the teacher's forward pass, and the very same step with the
teacher's outputs given.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from kdjax import methods, models
from kdjax.data import ArraySplit, Dataset, preprocessing, transformations
from kdjax.methods import CONSTANTS, Method, joint_branches
from kdjax.parallel import AXIS, Parallel, scan
from kdjax.training import optimizers
from kdjax.training import step as training

Fill = Callable[[str, tuple[int, ...]], np.ndarray]


class Recorded(models.Branched):
    """A network with branches whose outputs are known: they are its variables.

    `{'outputs': {'backbone': [B, N], 'branch1': [B, N * M], ...}}`; images are not looked at.
    """

    def __call__(self, images: jax.Array, train: bool = False) -> models.BranchedOutputs:
        del images, train

        def recorded(name: str) -> models.Outputs:
            return models.Outputs(self.get_variable("outputs", name), {}, None)

        heads = {f"branch{stage}": recorded(f"branch{stage}") for stage, _ in self.heads}
        return models.BranchedOutputs(recorded("backbone"), heads)


def look_up(method: Method) -> Method:
    """`method` where its constants have a leading axis of images: it sees those of the batch."""

    def loss(params, model_state, batch, key):
        constants = model_state[CONSTANTS]
        own = jax.tree.map(
            lambda x: x[batch["index"]].reshape(-1, *x.shape[2:]), constants
        )  # [images, M, N] -> [B * M, N]
        total, (model_state, metrics) = method.loss(
            params, model_state | {CONSTANTS: own}, batch, key
        )
        return total, (model_state | {CONSTANTS: constants}, metrics)

    return method._replace(loss=loss)


def filled(module: nn.Module, name: str, image_shape: tuple[int, ...], fill: Fill) -> dict:
    """Variables by name: kernels and biases from `fill`, BatchNorm as it starts."""
    images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)

    def start(path, leaf):
        place = [name, *(entry.key for entry in path[1:])]  # without the collection
        if place[-1] == "kernel" or place[-2:] == ["classifier", "bias"]:
            return fill("/".join(place), leaf.shape)
        return np.full(leaf.shape, place[-1] in ("scale", "var"), leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(start, shapes)
    return {collection: variables[collection] for collection in ("params", "batch_stats")}


class Sides:
    """What the programs share, and the programs: `step()`, `teacher()` and `student()`.

    Args:
      config: method hssakd_student with one student, and `config.teacher.network`.
      data: uint8 images `[N, H, H, 3]`, labels `[N]`, and mean and std `[3]`.
      rows: image numbers `[steps, batch]` of a round; every image is in one batch.
      num_classes: of the labels.
      fill: `(name, shape) -> array` of every kernel and bias.
    """

    def __init__(self, config: ConfigDict, data, rows: np.ndarray, num_classes: int, fill: Fill):
        images, labels, mean, std = data
        self.config, self.rows = config, rows
        self.parallel = Parallel(config.parallel, config.dtype)
        self.steps_per_dispatch = 1 if jax.default_backend() == "cpu" else len(rows)
        self.arrays = self.parallel.replicate({"image": images, "label": labels})
        split, names = ArraySplit(images, labels), tuple(map(str, range(num_classes)))
        dataset = Dataset("random", split, split, names, images.shape[1:], mean, std)
        self.prepare = preprocessing.train_input(dataset, "none")
        self.transformations = transformations.create(config.hssakd.transformations)
        fields = {"num_classes": num_classes, "dtype": jnp.dtype(config.dtype)}
        self.module = models.create(f"{config.teacher.network}_aux", **fields)
        student = models.create(f"{config.networks[0]}_aux", axis_name=AXIS, **fields)
        self.cohort = models.Cohort((student,))
        self.teacher_variables = filled(self.module, "teacher", images.shape[1:], fill)
        self.student_variables = filled(self.cohort.networks[0], "student", images.shape[1:], fill)

    def step(self) -> TrainSteps:
        """The whole step."""
        return self._train_steps(self.module, self.teacher_variables)

    def teacher(self) -> TeacherForward:
        """The teacher's forward pass over the views of all rows."""
        return TeacherForward(self)

    def student(self, outputs: tuple[np.ndarray, dict[str, np.ndarray]]) -> TrainSteps:
        """The step without the teacher's forward pass.

        Args:
          outputs: what that gives, `TeacherForward.outputs`.
        """
        logits, heads = outputs
        count = self.transformations.count

        def by_image(x: np.ndarray) -> np.ndarray:
            found = np.empty((len(self.arrays["label"]), count, x.shape[-1]), x.dtype)
            found[self.rows.reshape(-1)] = x.reshape(-1, count, x.shape[-1])
            return found

        recorded = {"outputs": jax.tree.map(by_image, {"backbone": logits} | heads)}
        module = Recorded(self.module.network, self.module.heads)
        return self._train_steps(module, recorded, look_up)

    def _train_steps(self, teacher: models.Branched, variables: dict, change=None) -> TrainSteps:
        method = methods.hssakd_student(
            self.cohort,
            teacher,
            variables,
            transformations=self.transformations,
            temperature=self.config.hssakd.temperature,
        )
        return TrainSteps(self, change(method) if change else method, variables)

    def dispatches(self) -> list[np.ndarray]:
        """The rows, cut as the training loop does it: `[steps per dispatch, batch]`."""
        count = self.steps_per_dispatch
        return [self.rows[first : first + count] for first in range(0, len(self.rows), count)]


class TrainSteps:
    """`kdjax.training.step.train_step` of a method, from the student's filled weights on."""

    def __init__(self, sides: Sides, method: Method, teacher_variables: dict):
        config, self.parallel = sides.config, sides.parallel
        tx = optimizers.create(config, steps_per_epoch=50_000 // config.batch_size)
        steps = training.train_step(method, tx, sides.prepare, config.seed)
        self.steps = self.parallel.map(steps, donate=True)
        self.constants = sides.arrays
        self.rows = [self.parallel.split(rows) for rows in sides.dispatches()]
        student = {name: {"network_0": each} for name, each in sides.student_variables.items()}
        params = {"cohort": student["params"]}
        model_state = {
            "batch_stats": student["batch_stats"],
            CONSTANTS: {"teacher": teacher_variables},
        }
        self.state = self.parallel.replicate(
            training.TrainState(np.zeros((), np.int32), params, model_state, tx.init(params))
        )

    def round(self) -> tuple[float, list[float]]:
        """Seconds and losses of a step with each of the rows."""
        losses = []
        start = time.perf_counter()
        for rows in self.rows:
            batches = self.parallel.shard({"index": rows})
            self.state, metrics = self.steps(self.state, self.constants, batches)
            losses.append(metrics["loss"])
        losses = np.concatenate([np.asarray(each) for each in losses])
        np.asarray(self.state.step)
        return time.perf_counter() - start, losses.tolist()


class TeacherForward:
    """The teacher in evaluation mode, on views that are there already."""

    def __init__(self, sides: Sides):
        parallel, module = sides.parallel, sides.module

        def forward(variables, views, batches):
            del batches
            _, outputs = scan(
                lambda carry, each: (
                    carry,
                    joint_branches.logits_of(module.apply(variables, each)),
                ),
                None,
                views,
            )
            return outputs

        @jax.jit
        def make_views(arrays, index):
            positions = np.arange(len(index))
            batch = sides.prepare(arrays, {"index": index}, jax.random.key(0), positions)
            return sides.transformations.rows(batch["image"])

        self.forward = parallel.map(forward)
        self.variables = parallel.replicate(sides.teacher_variables)
        self.views = [
            parallel.replicate(np.stack([make_views(sides.arrays, index) for index in rows]))
            for rows in sides.dispatches()
        ]
        self.batches = parallel.shard(np.zeros((1, 1), np.int32))

    def round(self) -> tuple[float, list[float]]:
        """Seconds of a forward pass with each of the rows; there are no losses."""
        start = time.perf_counter()
        for views in self.views:
            # In turn: on CPU, calls that do not depend on each other would run side by side.
            jax.block_until_ready(self.forward(self.variables, views, self.batches))
        return time.perf_counter() - start, []

    def outputs(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Class logits `[steps, B * M, N]`, and joint logits of every branch."""
        found = [self.forward(self.variables, views, self.batches) for views in self.views]
        return jax.tree.map(lambda *each: np.concatenate(each), *found)
