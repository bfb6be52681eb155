"""Pruning with any method: what is pruned, when, what is said of it, and what is refused."""

from __future__ import annotations

import importlib
import math

import jax
import numpy as np
import pytest

from kdjax import config as configs
from kdjax import models
from kdjax.errors import UserError
from kdjax.methods import base
from kdjax.methods.pruned import pruned
from kdjax.methods.pruning_selection import selection
from kdjax.networks import Network, NetworkSpec, save
from kdjax.parallel import fetch
from kdjax.pruning import pruning_state
from kdjax.runs import metrics
from kdjax.runs.checkpoints import Checkpoints
from kdjax.training import stages
from kdjax.training.building import build
from kdjax.training.preemption import Preempted, Preemption
from kdjax.training.program import Program
from kdjax.tree import leaves
from tests import tiny_runs as runs
from tests.models.helpers import random_variables
from tests.tiny_runs import pruning

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return pruning.written(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """The directories of tiny networks with random weights, by their names."""
    found = {}
    for name in ("tiny", "tiny_aux"):
        module = models.create(name, num_classes=runs.CLASSES)
        variables = random_variables(module, np.zeros((1, 8, 8, 3), np.float32))
        found[name] = tmp_path_factory.mktemp("teachers") / name
        save(found[name], Network(NetworkSpec.of(name, runs.CLASSES), variables), {})
    return found


# What is pruned


def learner_config(source, teachers, learner, *changes, **more):
    config = pruning.config(source, learner=learner, **dict(changes), **more)
    taught = {"kd": "tiny", "fitnet": "tiny", "hssakd_student": "tiny_aux"}
    if learner in taught:
        config.teacher.checkpoint = str(teachers[taught[learner]])
    return config


# A method, and changes of its config.
LEARNERS = {
    "cross_entropy": ("cross_entropy",),
    "two networks": ("cross_entropy", ("networks", ("tiny", "tiny"))),
    "a shared stage": (
        "cross_entropy",
        ("networks", ("tiny", "tiny")),
        ("shared_stages", 1),
    ),
    "mcl": ("mcl",),
    "kd": ("kd",),
    "fitnet": ("fitnet",),
    "hssakd_student": ("hssakd_student",),
    "hssakd_online": ("hssakd_online",),
    "mixskd": ("mixskd",),
    "byot": ("byot", ("networks", ("resnet8",))),
    "dks": ("dks", ("networks", ("resnet8",))),
    "frskd": ("frskd",),
    "ps_kd": ("ps_kd",),
    "cl_ilr": ("cl_ilr", ("networks", ("tiny",) * 3), ("shared_stages", 1)),
}
OTHER_NETWORKS = {
    name: ("hssakd_online", ("networks", (name, name)), ("data__image_size", 32))
    for name in ("wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv1", "densenet_40_12", "hcgnet_a1")
}
QUICK = ("wrn_16_1", "vgg8")


def pruned_and_others(config, filters):
    """The paths of the convolutions that are pruned, of those that are not, and all that is."""
    config.pruning.filters = filters
    run = build(config)
    params = run.abstract_state().params
    groups = selection(config.pruning, run.method.parts)(params)
    masked = {path for group in groups for path in group.leaves}
    kernels = {path for path, leaf in leaves(params).items() if len(leaf.shape) == 4}
    return kernels & masked, kernels - masked, masked


@pytest.mark.parametrize(
    "filters", [*(pytest.param(each, marks=slow) for each in ("conv", "conv_bn")), "coupled"]
)
@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_pruned(source, teachers, name, filters):
    """Every convolution of networks and branches, projections only with their sums."""
    config = learner_config(source, teachers, *LEARNERS[name])
    found, others, removed = pruned_and_others(config, filters)
    projections = {path for path in others if "/shortcut_conv/" in path}
    assert bool(projections) == (filters != "coupled")
    assert not any("shortcut" in path for path in found) or filters == "coupled"
    besides = {path for path in others - projections if path.startswith("cohort/")}
    expected = {"mixskd": "/self_teacher/", "frskd": "/bifpn/"}.get(name)
    assert bool(besides) == (expected is not None)
    assert all(expected in path for path in besides)
    assert all(path.startswith("cohort/") for path in removed)
    affine = {path.rpartition("/")[2] for path in removed} - {"kernel"}
    assert affine == (set() if filters == "conv" else {"scale", "bias"})
    branches = {path.split("/")[2] for path in found} & {"branch1", "branch2"}
    few = {"hssakd_student", "hssakd_online", "byot", "dks"}
    assert len(branches) == (2 if name in few else 1 if name == "mixskd" else 0)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=slow) for n in OTHER_NETWORKS]
)
def test_what_is_pruned_of_other_families_with_branches(source, teachers, name):
    """Extra stages too; gates and projections are left."""
    config = learner_config(source, teachers, *OTHER_NETWORKS[name])
    found, others, _ = pruned_and_others(config, "conv_bn")
    assert any("/branch3/stage4" in path for path in found)
    assert all("shortcut" in path or "gate" in path for path in others), others


def test_shared_layers_are_pruned_once(source, teachers):
    config = learner_config(source, teachers, *LEARNERS["a shared stage"])
    found, _, _ = pruned_and_others(config, "conv_bn")
    assert {"cohort/trunk/stem_conv/kernel", "cohort/network_1/stage2_block0/conv1/kernel"} < found
    assert not any("network_1/stem" in path for path in found)


def test_stages_that_pairs_of_networks_share_are_pruned(source, teachers):
    config = learner_config(source, teachers, *LEARNERS["cl_ilr"])
    pruned_paths, _, _ = pruned_and_others(config, "conv_bn")
    owners = {path.split("/")[1] for path in pruned_paths}
    assert owners == {"trunk", "pair_0", "pair_1"}  # what follows is a classifier only


def test_a_method_that_names_no_networks_is_refused(source):
    unknown = base.Method(init=None, loss=None, predict=None)
    with pytest.raises(UserError, match=r"config\.pruning\.method='sfp': .*Method\.parts"):
        pruned(unknown, pruning.config(source), every=6)


def test_sums_that_reach_across_shared_stages(source):
    networks = ("wrn_16_1", "wrn_16_1")
    config = pruning.config(source, networks=networks, shared_stages=1)
    config.pruning.filters = "coupled"
    with pytest.raises(UserError, match="shared_stages to 0"):
        build(config).abstract_state()


def test_patterns_and_skip(source):
    config = pruning.config(source, pruning__patterns=("**/conv*/kernel",))
    found, _, _ = pruned_and_others(config, "conv")
    block = {f"cohort/network_0/stage{s}_block0/conv{c}/kernel" for s in (1, 2) for c in (1, 2)}
    assert found == block
    for changes in ({"pruning__patterns": ()}, {}):
        changes = {
            "pruning__patterns": ("**/conv*/kernel",),
            "pruning__skip": ("**/*1/*",),
        } | changes
        found, _, _ = pruned_and_others(pruning.config(source, **changes), "conv_bn")
        stem = set() if changes["pruning__patterns"] else {"cohort/network_0/stem_conv/kernel"}
        assert found == {path for path in block if "conv2" in path} | stem


def trained(config, epochs=1):
    """The run and its state after some epochs."""
    run = build(config)
    state = run.parallel.replicate(run.init_state())
    constants = run.feed.train_constants()
    for epoch in range(epochs):
        for _, batches in run.feed.train(epoch, 0):
            state, _ = run.train_steps(state, constants, batches)
    return run, fetch(state)


@pytest.mark.parametrize(
    "name", [n if n == "cross_entropy" else pytest.param(n, marks=slow) for n in LEARNERS]
)
def test_an_epoch_ends_in_zeros(source, teachers, name):
    """Half of the filters, with scale and bias as it is the last epoch, and nothing else."""
    config = learner_config(source, teachers, *LEARNERS[name])
    config.pruning.filters, config.epochs = "conv_bn", 1
    config.pruning.update(evaluate_before=False, before_training=False)
    run, state = trained(config)
    before = leaves(run.init_state().params)
    masks = pruning_state(state.opt_state).masks
    assert all((~mask).sum() == mask.size // 2 for mask in masks.values())
    found, zeros = leaves(state.params), set()
    for group, mask in masks.items():
        norm = group.replace("conv", "bn")
        for path in (f"{group}/kernel", f"{norm}/scale", f"{norm}/bias"):
            filters = found[path].reshape(-1, mask.size)
            assert not filters[:, ~mask].any() and filters[:, mask].all(0).any()
            zeros.add(path)
    for path in found.keys() - zeros:
        assert not np.array_equal(found[path], before[path]), path
        if path.endswith("kernel"):
            assert found[path].reshape(-1, found[path].shape[-1]).any(0).all(), path


@slow
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_weights(source, scope):
    config = pruning.config(source, pruning__unit="weights", pruning__scope=scope)
    run, state = trained(config)
    said = run.method.epoch_report(state.params, state.opt_state).metrics
    kernels = [
        leaf
        for path, leaf in leaves(state.params).items()
        if "conv" in path and "short" not in path
    ]
    total, zero = sum(k.size for k in kernels), sum((k == 0).sum() for k in kernels)
    assert zero / total == pytest.approx(0.5, abs=1e-3)
    assert (said["pruning/weights"], said["pruning/weights_pruned"]) == (total, zero)
    halves = [(k == 0).mean() == 0.5 for k in kernels]
    assert all(halves) == (scope == "layer")


# When, and what is said of it


def curve(epoch):
    """ASFP's rate for P = 1/2 in 4 epochs: (0, 0), (1/8 of them, 3/8) and (4, 1/2)."""
    exponent = 11.0903  # of 1 - exp(-k / 8) = 3/4 (1 - exp(-k))
    return 0.5 * (1 - math.exp(-exponent * epoch / 4)) / (1 - math.exp(-exponent))


ALL, NONE = [0.5] * 4, [0.0] * 4
RISING = [curve(0), curve(1), curve(2), 0.5]
FALLING = [1, math.exp(math.log(1e-5) / 4), math.exp(math.log(1e-5) / 2), 0]
# Rate, decay and hard fraction by epochs; the epochs that may be the best.
PLANS = {
    "sfp": (ALL, NONE, NONE, [1, 2, 3, 4]),
    "asfp": (RISING, NONE, NONE, [4]),
    "srfp": (ALL, FALLING, NONE, [4]),
    "asrfp": (RISING, FALLING, NONE, [4]),
    "hfp": (ALL, NONE, [1] * 4, [1, 2, 3, 4]),
    "ghfp": (ALL, NONE, [1 - (1 - n / 4) ** 3 for n in (1, 2, 3, 4)], [1, 2, 3, 4]),
    "fpgm": (ALL, NONE, NONE, [1, 2, 3, 4]),
}


def saved(workdir, which):
    """The step and parameters of a checkpoint."""
    checkpoints = Checkpoints(workdir / "checkpoints", "mean/top1", read_only=True)
    step, tree = checkpoints.restore_tree(which)
    checkpoints.close()
    return step, leaves(tree["params"])


def zero_filters(arrays):
    kernels = [a for path, a in arrays.items() if a.ndim == 4 and "shortcut" not in path]
    return sum(int((~a.any((0, 1, 2))).sum()) for a in kernels)


def scored(monkeypatch, scores):
    """Epoch n has the n-th score as its accuracy, with the pruning and without it."""
    evaluate, rising = Program.evaluate, {}

    def scored(self, state, constants):
        step = int(np.asarray(fetch(state.step)))
        rising[step] = scores[step // pruning.PER_EPOCH - 1]
        return evaluate(self, state, constants) | {"mean/top1": rising[step]}

    monkeypatch.setattr(Program, "evaluate", scored)


@pytest.mark.parametrize("name", [n if n == "srfp" else pytest.param(n, marks=slow) for n in PLANS])
def test_a_run_follows_its_schedule(source, tmp_path, monkeypatch, name):
    """Epochs before the pruning is what it shall be are never the best, whatever their accuracy."""
    scored(monkeypatch, [0.4, 0.3, 0.2, 0.1])
    stages.train(pruning.config(source, name), tmp_path)
    rows = metrics.read(tmp_path / "metrics.jsonl")
    *plan, complete = PLANS[name]
    for key, values in zip(("rate", "decay", "hard_fraction"), plan, strict=True):
        found = [row[f"pruning/{key}"] for row in rows]
        np.testing.assert_allclose(found, values, rtol=1e-3, atol=1e-6)
    filters = 4 + 2 * 4 + 2 * 8
    kept = [filters - row["pruning/filters_pruned"] for row in rows]
    assert [row["pruning/filters"] for row in rows] == [filters] * 4
    expected = [sum(c - math.floor(c * p + 1e-6) for c in (4, 4, 4, 8, 8)) for p in plan[0]]
    assert kept == expected and kept[-1] == filters // 2
    assert (rows[0]["pruning/filters_hard"] == 0) == (name not in ("hfp", "ghfp"))
    assert rows[-1]["pruning/filters_hard"] == (filters // 2 if name in ("hfp", "ghfp") else 0)
    assert rows[-1]["pruning/norm_pruned"] == 0 < rows[-1]["pruning/norm_kept"]
    assert (rows[0]["pruning/norm_pruned"] > 0) == (name in ("srfp",))
    assert ("before_pruning/network_0/top1" in rows[0]) == (name != "hfp")
    step, arrays = saved(tmp_path, "best")
    assert step == pruning.PER_EPOCH * complete[0]
    assert zero_filters(arrays) == filters // 2


@slow
def test_an_unpruned_epoch_is_the_best_for_lack_of_others_only(source, tmp_path, monkeypatch):
    """The first epoch of SRFP multiplies by 1."""
    scored(monkeypatch, [0.4, 0.3, 0.2, 0.1])
    config = pruning.config(source, "srfp")
    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(Preemption, "requested", lambda self, step: step == 6)
        stages.train(config, tmp_path)
    step, arrays = saved(tmp_path, "latest")
    assert step == 6 and zero_filters(arrays) == 0
    assert saved(tmp_path, "best")[0] == 6
    stages.train(config, tmp_path)
    step, arrays = saved(tmp_path, "best")
    assert step == 24 and zero_filters(arrays) == 14


@slow
def test_metrics_before_pruning(source, tmp_path, monkeypatch):
    """They are those of the same epoch without its last pruning."""
    changes = {"epochs": 1, "pruning__before_training": True}
    stages.train(pruning.config(source, "sfp", **changes), tmp_path / "pruned")
    (row,) = metrics.read(tmp_path / "pruned" / "metrics.jsonl")

    def never(method, config, *, every):
        return pruned(method, config, every=100 * every)

    # The package has a function of the module's name.
    creating = importlib.import_module("kdjax.methods.create")
    monkeypatch.setattr(creating, "pruned", never)
    config = pruning.config(source, "sfp", **changes, pruning__evaluate_before=False)
    stages.train(config, tmp_path / "not")
    (expected,) = metrics.read(tmp_path / "not" / "metrics.jsonl")
    assert not any(name.startswith("before_pruning") for name in expected)
    names = ("network_0/cross_entropy", "network_0/top1", "mean/top1")
    for name in names:
        assert row[f"before_pruning/{name}"] == pytest.approx(expected[name], rel=1e-6)
    assert abs(row[names[0]] - expected[names[0]]) > 1e-3
    assert row["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-6)


@slow
def test_what_was_soft_is_remembered_up_to_rounding(source):
    """Decayed filters return to what they were; hard ones have been zero all the time."""
    config = pruning.config(
        source, "ghfp", pruning__base="srfp", pruning__hard_fraction="0.5", epochs=4
    )
    run, state = trained(config, epochs=2)
    (before,) = run.method.epoch_report(state.params, state.opt_state).other_params.values()
    masks = pruning_state(state.opt_state)
    decay = FALLING[1]
    for group, mask in masks.masks.items():
        old, new = (leaves(tree)[f"{group}/kernel"] for tree in (before, state.params))
        hard = masks.hard[group]
        soft = ~mask & ~hard
        assert soft.sum() == hard.sum() == mask.size // 4
        np.testing.assert_array_equal(old[..., mask], new[..., mask])
        assert not old[..., hard].any() and not new[..., hard].any()
        np.testing.assert_allclose(old[..., soft] * decay, new[..., soft], rtol=1e-3, atol=1e-8)
        assert np.abs(old[..., soft]).max() > 0.01


@slow
def test_four_devices_prune_as_one(source, tmp_path):
    """The same filters; parameters up to rounding, beside what two epochs change."""
    changes = {
        "data__image_size": 0,
        "optimizer__learning_rate": 0.01,
        "pruning__filters": "conv_bn",
    }
    changes |= {"optimizer__warm_up_epochs": 0, "pruning__base": "asrfp"}
    flags = runs.settings(source, **changes)[1:]
    config = f"--config={runs.ROOT}/configs/ghfp.py:digits,tiny,0.5"
    trees = []
    for devices in (1, 4):
        workdir = tmp_path / str(devices)
        runs.finish(runs.start(config, *flags, f"--workdir={workdir}", devices=devices))
        checkpoints = Checkpoints(workdir / "checkpoints", "mean/top1", read_only=True)
        trees.append(leaves(checkpoints.restore_tree()[1]))
        checkpoints.close()
    one, four = trees
    assert one.keys() == four.keys()
    pruned = [path for path in one if "/masks/" in path or "/hard/" in path]
    assert len(pruned) == 10 and sum(one[path].sum() for path in pruned) > 20
    for path, array in one.items():
        if path in pruned:
            np.testing.assert_array_equal(four[path], array)
            continue
        size = max(float(np.abs(array).max()), 1e-2)
        np.testing.assert_allclose(four[path], array, rtol=0, atol=2e-4 * size, err_msg=path)
        if path.startswith("params/"):
            np.testing.assert_array_equal(four[path] == 0, array == 0)


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "spf"}, "method='spf' is unknown; use 'sfp' or"),
        ({"filters": "bn"}, "filters='bn' is unknown; use 'conv' or"),
        ({"unit": "channels"}, "unit='channels' is unknown; use 'filters' or 'weights'"),
        ({"criterion": "l3"}, "criterion='l3' is unknown; use 'l1' or 'l2' or 'geom"),
        ({"distance": "l3", "criterion": "geometric_median"}, "distance='l3' is unknown"),
        ({"scope": "stage"}, "scope='stage' is unknown"),
        ({"counting": "up"}, "counting='up' is unknown"),
        ({"method": "ghfp", "base": "hfp"}, "base='hfp' is unknown"),
        ({"method": "ghfp", "hard_fraction": "x"}, "hard_fraction='x' is unknown; use cubic, cos"),
        ({"method": "ghfp", "hard_fraction": "1.5"}, "hard_fraction='1.5' is unknown"),
        ({"method": "ghfp", "hard_fraction": "nan"}, "hard_fraction='nan' is unknown"),
        ({"method": "ghfp", "hard_fraction": "\u00b2"}, "hard_fraction='\u00b2' is unknown"),
        ({"method": "asfp", "rising": "square"}, "rising='square' is unknown"),
        ({"method": "srfp", "decay": "square"}, "decay='square' is unknown"),
        ({"method": "srfp", "sigma": 0.0}, "sigma=0.0: must be positive and at most 1"),
        ({"method": "srfp", "zero_from": 1.5}, "zero_from=1.5: must be at least 0 and at most 1"),
        ({"method": "asfp", "rate_from": -1.0}, "rate_from=-1.0: must be at least 0"),
        ({"rate": 1.0}, "rate=1.0: must be positive and less than 1"),
        ({"rate": -1.0}, "rate=-1.0: must be positive"),
        ({"rate": 0.0}, "rate=0.0: must be positive"),
        # No effect.
        ({"base": "srfp"}, "base='srfp' is for method 'ghfp'"),
        ({"hard_fraction": "0.5"}, "hard_fraction='0.5' is for method 'ghfp'"),
        ({"rising": "cubic"}, "rising='cubic' is for 'asfp' and 'asrfp'"),
        ({"method": "ghfp", "base": "srfp", "rising": "cubic"}, "rising='cubic' is for 'asfp'"),
        ({"method": "asfp", "decay": "linear"}, "decay='linear' is for 'srfp' and 'asrfp'"),
        ({"distance": "l1"}, "distance='l1' is for the geometric median"),
        ({"norm_rate": 0.1}, "norm_rate=0.1 is for the geometric median"),
        ({"unit": "weights", "criterion": "l1"}, "criterion='l1' is for filters"),
        ({"unit": "weights", "filters": "conv_bn"}, "filters='conv_bn' is for filters"),
        ({"unit": "weights", "method": "fpgm", "norm_rate": 0.1}, "norm_rate=0.1 is for the geo"),
        ({"patterns": ("**/conv1/*",), "filters": "coupled"}, "patterns choose convolutions one"),
        ({"method": "", "scope": "global"}, "scope has no effect without config.pruning.method"),
    ],
)
def test_settings_that_make_no_pruning(source, changes, message):
    config = pruning.config(source)
    if changes.get("method") == "":
        config.pruning.rate = 0.4
    config.pruning.update(changes)
    with pytest.raises(UserError, match=rf"^config\.pruning.*{message}") as error:
        configs.validate(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0.1}, "rate=0.1 prunes nothing"),
        ({"patterns": ("**/nothing/*",)}, r"pattern '\*\*/nothing/\*' matches no kernel"),
        ({"patterns": ("heads/**",)}, r"pattern 'heads/\*\*' matches no kernel"),
        ({"skip": ("**/nothing/*",)}, r"skip pattern '\*\*/nothing/\*' matches no kernel"),
        ({"skip": ("**",)}, "the selection found nothing to prune"),
        ({"method": "srfp", "decay": "cosine", "zero_from": 1.0}, "would not be zero in the end"),
    ],
)
def test_pruning_that_does_not_fit_its_networks(source, tmp_path, changes, message):
    config = pruning.config(source)
    config.pruning.update(changes)
    with pytest.raises(UserError, match=rf"^config\.pruning.*{message}") as error:
        stages.train(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_networks_without_sums_have_no_coupled_filters(source):
    config = pruning.config(source, networks=("vgg8",), data__image_size=32)
    config.pruning.filters = "coupled"
    with pytest.raises(UserError, match=r"pruning\.filters='coupled': .*VGG has no residual sums"):
        build(config).abstract_state()


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "ghfp", "base": "asrfp", "hard_fraction": "cosine", "decay": "linear"},
        {"method": "ghfp", "hard_fraction": "0"},
        {"method": "fpgm", "norm_rate": 0.1, "distance": "l1"},
        {"method": "hfp", "criterion": "random", "scope": "global"},
        {"method": "sfp", "sigma": 1e-7, "zero_from": 0.8, "rate_from": 0.9},  # of ImageNet's files
        {"method": "sfp", "zero_from": 1.0, "rate_from": 1.0},
    ],
)
def test_settings_that_go_together(source, changes):
    config = pruning.config(source)
    config.pruning.update(changes)
    build(config).abstract_state()


@slow
def test_random_filters_are_those_of_the_seed(source):
    """The same in every epoch, others with another seed."""
    masks = []
    for seed in (0, 0, 1):
        config = pruning.config(source, pruning__criterion="random", seed=seed)
        run = build(config)
        params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), run.abstract_state().params)
        state = run.method.optimizer(run.tx).init(params)
        masks.append(np.concatenate(list(pruning_state(state[-1]).masks.values())))
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()
