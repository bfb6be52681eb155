"""Every file of configs/ and the settings they share."""

import importlib.util
import itertools
import re

import ml_collections
import pytest

from kdjax import config as configs
from kdjax.errors import UserError
from tests.tiny_runs import ROOT

FILES = sorted((ROOT / "configs").glob("[!_]*.py"))
ARGUMENTS = [
    ",".join(parts)
    for parts in itertools.product(("cifar100", "cifar10", "digits"), ("", "wrn_16_2"), ("", "4"))
]
REFUSED = ["cifar", "", "digits,,0", "digits,,x", "digits,,-1", "digits,resnet8,2,2"]

# Files with arguments of their own: {argument: (data, networks, teacher)}, and what they refuse.
PRUNING = ("asfp", "asrfp", "fpgm", "ghfp", "hfp", "sfp", "srfp")
OWN_ARGUMENTS = {
    **{
        key: {
            "cifar10": ("cifar10", ("sfp_resnet20",), ""),
            "cifar100,sfp_resnet110,0.6": ("cifar100", ("sfp_resnet110",), ""),
            "imagenet,,0.3,runs/dense": ("imagenet2012", ("resnet18",), ""),
            "digits": ("digits", ("resnet8",), ""),
        }
        for key in PRUNING
    },
    "linear_probe": {
        "cifar10": ("cifar10", ("resnet32",), ""),
        "digits": ("digits", ("resnet8",), ""),
        "tfds:stl10,,contrastive": ("stl10", ("resnet32",), ""),
        "arrays:some/file.npz": ("file.npz", ("resnet32",), ""),
        "folder:some/birds": ("folder:some/birds", ("resnet32",), ""),
    },
    "few_shot": {
        "cifar10": ("cifar10", ("resnet32",), ""),
        "digits": ("digits", ("resnet32",), ""),
        "cifar100,60": ("cifar100", ("resnet32",), ""),
        "arrays:some/file.npz,3": ("file.npz", ("resnet32",), ""),
    },
    "distill": {
        "kd": ("cifar100", ("wrn_16_2",), "wrn_40_2"),
        "crd,digits": ("digits", ("resnet8",), "resnet14"),
        "at,cifar10,resnet56,resnet20": ("cifar10", ("resnet20",), "resnet56"),
    },
    "hsakd": {
        "cifar10": ("cifar10", ("wrn_16_2",), "wrn_40_2"),
        "cifar100,resnet56": ("cifar100", ("wrn_16_2",), "resnet56"),
        "cifar100,,resnet20": ("cifar100", ("resnet20",), "wrn_40_2"),
        "imagenet": ("imagenet2012", ("resnet18",), "resnet34"),
        "digits": ("digits", ("resnet8",), "resnet14"),
    },
    "hssakd": {
        "cifar100": ("cifar100", ("wrn_16_2",), "wrn_40_2"),
        "digits,,,both": ("digits", ("resnet8",), "resnet14"),
        "cifar10,resnet56,resnet20,rotations": ("cifar10", ("resnet20",), "resnet56"),
    },
    "hssakd_online": {
        "cifar100": ("cifar100", ("wrn_40_2",) * 2, ""),
        "digits,,3": ("digits", ("resnet8",) * 3, ""),
        "cifar10,wrn_40_1,resnet20": ("cifar10", ("wrn_40_1", "resnet20"), ""),
        "imagenet": ("imagenet2012", ("resnet18",) * 2, ""),
    },
    "lmcl": {
        "cifar10,resnet20": ("cifar10", ("resnet20",) * 2, ""),
        "digits,,3": ("digits", ("resnet8",) * 3, ""),
        "cifar100,wrn_16_2,wrn_40_2": ("cifar100", ("wrn_16_2", "wrn_40_2"), ""),
    },
    "mixskd": {
        "cifar10": ("cifar10", ("mixskd_resnet18",), ""),
        "cifar100,wrn_16_2": ("cifar100", ("wrn_16_2",), ""),
        "digits": ("digits", ("resnet8",), ""),
        "imagenet": ("imagenet2012", ("resnet50",), ""),
        "folder:some/birds": ("folder:some/birds", ("resnet18",), ""),
        "folder:~/cars,resnet50": ("folder:~/cars", ("resnet50",), ""),
    },
    "segmentation": {
        "camvid": ("camvid_train.npz", ("resnet20",), ""),
        "voc": ("VOC2012", ("resnet50",), ""),
        "cityscapes,resnet18": ("cityscapes", ("resnet18",), ""),
        "ade20k,resnet34,runs/it": ("ADEChallengeData2016", ("resnet34",), ""),
    },
    "detection": {
        "coco256": ("coco256", ("resnet18",), ""),
        "voc": ("VOCdevkit", ("resnet18",), ""),
        "coco,resnet34,runs/it": ("data/coco", ("resnet34",), ""),
    },
    "online": {
        "okddip": ("cifar100", ("resnet32",) * 4, ""),
        "one,cifar10,resnet20,3": ("cifar10", ("resnet20",) * 3, ""),
        "cl_ilr,digits": ("digits", ("resnet8",) * 3, ""),
        "mcl_okd,cifar100,vgg16_maxpool": ("cifar100", ("vgg16_maxpool",) * 4, ""),
    },
    "self_distill": {
        "dks": ("cifar100", ("selfkd_resnet18",), ""),
        "cross_entropy,cifar10": ("cifar10", ("selfkd_resnet18",), ""),
        "frskd,cifar100,selfkd_resnet50": ("cifar100", ("selfkd_resnet50",), ""),
        "byot,digits": ("digits", ("resnet8",), ""),
        "mixup,imagenet": ("imagenet2012", ("resnet50",), ""),
        "bake,folder:some/birds": ("folder:some/birds", ("resnet18",), ""),
        "sad,folder:~/cars,resnet50": ("folder:~/cars", ("resnet50",), ""),
    },
}
OWN_REFUSED = {
    **{
        key: ["", "cifar", "digits,,0", "digits,,1", "digits,,x", "digits,,.4,a,b"]
        for key in PRUNING
    },
    "linear_probe": ["", "cifar", "arrays:", "tfds", "digits,,moco", "digits,,supervised,2"],
    "few_shot": ["", "cifar", "digits,x", "digits,-1", "digits,5,5"],
    "distill": ["", "kdd", "kd,cifar", "kd,digits,resnet14,resnet8,2"],
    "hsakd": ["", "cifar", "digits,resnet14,resnet8,2"],
    "hssakd": ["", "cifar", "digits,resnet14,resnet8,both,2"],
    "lmcl": ["", "cifar", "digits,,0", "digits,resnet8,2,2"],
    "mixskd": ["", "cifar", "folder:", "digits,resnet8,2"],
    "segmentation": ["", "digits", "voc,resnet18,runs/it,2"],
    "detection": ["", "digits", "voc,resnet18,runs/it,2"],
    "online": ["", "dml", "one,cifar", "one,digits,,0", "one,digits,resnet8,2,2"],
    "self_distill": ["", "kd", "dks,cifar", "dks,folder:", "dks,digits,resnet8,2"],
    "hssakd_online": ["", "cifar", "digits,,0", "digits,,1", "digits,,-2", "digits,resnet8,2,2"],
}


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


def cases(plain: list, own: dict) -> list:
    """(file, one of its arguments) for every file."""
    return [
        pytest.param(path, argument, id=f"{path.stem}:{argument}")
        for path in FILES
        for argument in own.get(path.stem, plain)
    ]


@pytest.mark.parametrize(("path", "argument"), cases(ARGUMENTS, OWN_ARGUMENTS))
def test_documented_arguments(path, argument):
    config = load(path).get_config(argument)
    assert config.is_locked
    if path.stem in OWN_ARGUMENTS:
        data, networks, teacher = OWN_ARGUMENTS[path.stem][argument]
        assert (config.networks, config.teacher.network) == (networks, teacher)
    else:
        data, network, count = [*argument.split(","), "", ""][:3]
        assert not network or set(config.networks) == {network}
        assert not count or len(config.networks) == int(count)
    assert config.data.source.endswith(data)


@pytest.mark.parametrize(("path", "argument"), cases(REFUSED, OWN_REFUSED))
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


def test_settings_of_hsakd():
    """Table of the paper's experiments; what is not said here is its own default's."""
    hsakd = load(ROOT / "configs" / "hsakd.py")
    cifar = hsakd.get_config("cifar100")
    optimizer = cifar.optimizer
    assert (cifar.epochs, cifar.batch_size, cifar.hssakd.temperature) == (240, 64, 3.0)
    assert (optimizer.learning_rate, optimizer.weight_decay) == (0.05, 5e-4)
    assert (optimizer.milestones, optimizer.factors) == ((150, 180, 210), (0.1,) * 3)
    assert optimizer.nesterov and optimizer.momentum == 0.9
    assert (cifar.method, cifar.teacher.method) == ("hssakd_student", "hssakd_teacher")
    for student in ("mobilenetv2_half", "shufflenetv1", "hsakd_shufflenetv2_1x"):
        assert hsakd.get_config(f"cifar100,vgg13,{student}").optimizer.learning_rate == 0.01
    imagenet = hsakd.get_config("imagenet")
    optimizer = imagenet.optimizer
    assert (imagenet.epochs, imagenet.batch_size, imagenet.data.image_size) == (100, 256, 224)
    assert (optimizer.learning_rate, optimizer.weight_decay) == (0.1, 1e-4)
    assert optimizer.milestones == (30, 60, 90) and not optimizer.nesterov
    hssakd = load(ROOT / "configs" / "hssakd.py")
    assert hssakd.get_config("cifar100,,,both").hssakd.transformations == "both"


def test_settings_of_linear_probes():
    """PAPERS' table of HSAKD's and MCL's linear evaluation."""
    get_config = load(ROOT / "configs" / "linear_probe.py").get_config
    for argument, rate, milestones, batch_size, nesterov in (
        ("cifar100", 0.1, (30, 60, 90), 64, True),
        ("cifar100,,contrastive", 30.0, (60, 80), 256, False),
    ):
        config = get_config(argument)
        optimizer = config.optimizer
        assert (config.epochs, config.batch_size) == (100, batch_size)
        assert (optimizer.learning_rate, optimizer.milestones) == (rate, milestones)
        assert set(optimizer.factors) == {0.1} and len(optimizer.factors) == len(milestones)
        assert (optimizer.weight_decay, optimizer.nesterov) == (0.0, nesterov)


def test_settings_of_detection():
    """MixSKD's schedule of COCO and HSSAKD's of VOC; milestones count from the warm-up's end."""
    get_config = load(ROOT / "configs" / "detection.py").get_config
    for argument, rate, ends, form, sizes in (
        ("coco", 0.02, (8, 11), "cascade", (800, 1333)),
        ("voc", 0.01, (9,), "faster_rcnn", (600, 1000)),
    ):
        config = get_config(argument)
        optimizer, settings = config.optimizer, config.detection
        milestones = tuple(each + optimizer.warm_up_epochs for each in optimizer.milestones)
        assert (config.epochs, config.batch_size, milestones) == (12, 16, ends)
        assert (optimizer.learning_rate, optimizer.weight_decay) == (rate, 1e-4)
        assert (settings.form, (*settings.min_sizes, settings.max_size)) == (form, sizes)
        assert min(config.data.canvas) >= sizes[1] and set(optimizer.factors) == {0.1}
        configs.validate(config)


def test_held_out_classes_of_few_shot():
    get_config = load(ROOT / "configs" / "few_shot.py").get_config
    first = {each: get_config(each).data.first_class for each in ("cifar100", "digits", "digits,7")}
    assert first == {"cifar100": 80, "digits": 5, "digits,7": 7}
    assert get_config("tfds:stl10").data.first_class == 0
    assert get_config().job == "few-shot"


def test_settings_of_self_distillation():
    """Self-KD-Lib's main.py, and what its methods need of batches."""
    get_config = load(ROOT / "configs" / "self_distill.py").get_config
    cifar = get_config("cs_kd")
    optimizer = cifar.optimizer
    assert (cifar.method, cifar.epochs, cifar.batch_size) == ("cs_kd", 200, 128)
    assert (optimizer.learning_rate, optimizer.weight_decay) == (0.1, 5e-4)
    assert (optimizer.milestones, optimizer.factors) == ((100, 150), (0.1, 0.1))
    assert (optimizer.warm_up_epochs, optimizer.momentum, optimizer.nesterov) == (5, 0.9, True)
    views = {"ddgsd": (2, 0), "cs_kd": (1, 1), "bake": (1, 3), "dks": (1, 0)}
    for method, wanted in views.items():
        data = get_config(method).data
        assert (data.views, data.partners) == wanted
    folder = get_config("frskd,folder:birds")
    assert (folder.data.image_size, folder.data.augmentation) == (224, "resized_crop_flip")
    assert folder.epochs == 200 and folder.optimizer.milestones == (100, 150)
    pyramids = [
        get_config(argument).frskd
        for argument in (
            "frskd",
            "frskd,digits",
            "frskd,cifar100,selfkd_resnet50",
            "frskd,imagenet",
        )
    ]
    assert [(each.width, each.depth) for each in pyramids] == [(2, 2), (2, 2), (1, 1), (1, 1)]
    with pytest.raises(UserError, match="method='bykt' is unknown; did you mean 'byot'"):
        get_config("bykt")


def test_settings_of_online_distillation():
    """MCL-OKD's scripts; what is shared depends on the method, and on the network."""
    get_config = load(ROOT / "configs" / "online.py").get_config
    for method, shared in {"one": 2, "okddip": 2, "cl_ilr": 1, "mcl_okd": 1}.items():
        config = get_config(method)
        assert (config.method, config.shared_stages, config.epochs) == (method, shared, 300)
        official = (0.05, 64) if method == "mcl_okd" else (0.1, 128)
        assert (config.optimizer.learning_rate, config.batch_size) == official
        assert get_config(f"{method},cifar100,vgg16_maxpool").shared_stages == 3


def test_settings_of_mixskd():
    """The official scripts', and the schedule of CIFAR for folders."""
    get_config = load(ROOT / "configs" / "mixskd.py").get_config
    for data, batch_size in (("cifar100", 64), ("folder:birds", 32)):
        config = get_config(data)
        optimizer = config.optimizer
        assert (config.method, config.epochs, config.batch_size) == ("mixskd", 205, batch_size)
        assert (optimizer.learning_rate, optimizer.weight_decay) == (0.1, 5e-4)
        assert (optimizer.milestones, optimizer.factors) == ((100, 150), (0.1, 0.1))
        assert (optimizer.warm_up_epochs, optimizer.nesterov) == (5, True)
        assert (config.mixskd.alpha, config.mixskd.temperature) == (0.4, 3.0)
    assert (config.data.image_size, config.data.augmentation) == (224, "resized_crop_flip")
    imagenet = get_config("imagenet")
    optimizer = imagenet.optimizer
    assert (imagenet.epochs, imagenet.batch_size, imagenet.data.image_size) == (305, 128, 224)
    assert (optimizer.schedule, optimizer.warm_up_epochs) == ("cosine", 5)
    assert (optimizer.learning_rate, optimizer.weight_decay) == (0.1, 1e-4)
    assert not optimizer.nesterov and imagenet.mixskd.alpha == 0.2


def test_settings_of_mcl_beyond_the_batch():
    """PAPERS' table of MCL's settings, and the authors' of MoCo and SimCLR."""
    memory = load(ROOT / "configs" / "mcl_imagenet.py").get_config()
    optimizer = memory.optimizer
    assert (memory.method, memory.epochs, memory.batch_size) == ("mcl_memory", 90, 256)
    assert (optimizer.learning_rate, optimizer.weight_decay) == (0.1, 1e-4)
    assert (optimizer.milestones, optimizer.nesterov) == ((30, 60), True)
    settings = memory.mcl_memory
    assert (settings.negatives, settings.momentum, settings.temperature) == (8192, 0.5, 0.07)
    assert (settings.alpha, settings.beta, settings.gamma, settings.lam) == (0.1, 0.1, 1, 1)
    moco = load(ROOT / "configs" / "moco_mcl.py").get_config
    config = moco()
    optimizer = config.optimizer
    assert (config.epochs, config.batch_size, config.moco.queue) == (200, 256, 65536)
    assert (config.moco.momentum, config.moco.temperature) == (0.999, 0.07)
    assert (optimizer.learning_rate, optimizer.milestones) == (0.03, (120, 160))
    assert (optimizer.weight_decay, optimizer.nesterov) == (1e-4, False)
    assert config.data.augmentation == "contrastive_streamed"
    assert moco("cifar10").moco.queue == 4096 and moco("digits,,1").networks == ("resnet8",)
    simclr = load(ROOT / "configs" / "simclr_mcl.py").get_config()
    optimizer = simclr.optimizer
    assert (optimizer.name, optimizer.schedule, optimizer.warm_up_epochs) == ("lars", "cosine", 10)
    assert (simclr.batch_size, optimizer.learning_rate) == (4096, 4.8)


def test_data_sets_that_are_none():
    known = "digits, cifar10, cifar100, folder:PATH, hf:PATH, arrays:FILE.npz$"
    with pytest.raises(UserError, match=rf"choose from {known}"):
        configs.cifar_run("mcl", "folder:", count=2)
    with pytest.raises(UserError, match="cifar100, imagenet, folder:PATH, "):
        configs.self_distillation_run("dks", "folders:birds")


def test_settings_of_pruning():
    """PAPERS' table of training settings; a trained network starts at a tenth of the rate."""
    ghfp = load(ROOT / "configs" / "ghfp.py")
    cifar, optimizer = ghfp.get_config(), ghfp.get_config().optimizer
    assert (cifar.epochs, cifar.batch_size, cifar.pruning.rate) == (200, 128, 0.4)
    assert (optimizer.milestones, optimizer.factors) == ((60, 120, 160), (0.2,) * 3)
    assert optimizer.nesterov and optimizer.weight_decay == 5e-4
    start = ghfp.get_config("cifar10,sfp_resnet56,0.6,runs/dense")
    assert (start.pruning.rate, start.start.checkpoint) == (0.6, "runs/dense")
    assert start.optimizer.learning_rate == optimizer.learning_rate / 10 == 0.01
    deep = ghfp.get_config("cifar10,sfp_resnet110").optimizer
    assert (deep.learning_rate, deep.milestones) == (0.01, (1, 60, 120, 160))
    imagenet = ghfp.get_config("imagenet")
    assert (imagenet.epochs, imagenet.batch_size, imagenet.pruning.zero_from) == (100, 256, 0.8)
    assert imagenet.optimizer.milestones == (30, 60, 90)
    for name in PRUNING:
        assert load(ROOT / "configs" / f"{name}.py").get_config().pruning.method == name


def test_differences_are_dotted_names():
    old, new = configs.plain(configs.base()), configs.plain(configs.base())
    assert configs.differences(old, new) == []
    new["batch_size"], new["mcl"]["alpha"] = 7, 5.0
    del new["dml"]
    assert configs.differences(old, new) == ["batch_size", "dml", "mcl.alpha"]


def test_a_run_from_before_a_setting_existed_has_its_default():
    old = configs.plain(configs.base())
    old["epochs"], old["data"]["source"], old["gone"] = 7, "digits", 1
    del old["data"]["views"], old["mixskd"]
    found = configs.completed(old)
    assert found["data"]["views"] == 1 and found["mixskd"]["temperature"] == 3.0
    assert (found["epochs"], found["data"]["source"], found["gone"]) == (7, "digits", 1)


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


@pytest.mark.parametrize("name", ["evaluation", "optimizer.momentum"])
def test_a_config_lacks_nothing(name):
    config = configs.base()
    *section, last = name.split(".")
    del (config[section[0]] if section else config)[last]
    with pytest.raises(UserError, match=rf"^config\.{name} is missing"):
        configs.validate(config)
