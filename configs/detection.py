"""Object detection: Faster and Cascade R-CNN with a feature pyramid on the stages of a network.

    python -m kdjax.main --config configs/detection.py:voc,resnet18,runs/r18 --workdir runs/voc
    python -m kdjax.main --config configs/detection.py:coco,resnet50,runs/r50 --workdir runs/coco
    python -m kdjax.main --config configs/detection.py --workdir runs/coco256

Arguments: data, and optionally network and checkpoint: `data[,network[,checkpoint]]`. With a
checkpoint, a run's workdir or what --job=import-torch or --job=compact wrote, the stages start from
its weights; the classifier is left out, so its number of classes does not matter. Networks have
four stages at strides of 4 to 32, such as resnet18, resnet34 and resnet50.

voc: Faster R-CNN, VOC 2007 and 2012 trainval, tested on 2007 by the 11-point mAP ('voc07'). HSSAKD
(arXiv 2109.03075), ResNet-18: 76.18, with its pretrained network 78.45. The schedule is that of the
authors' repository: 4 epochs of the set repeated 3 times, here 12; SGD 0.01, a tenth after 9; 1000
x 600. Data in data/VOCdevkit, with VOC2007/ and VOC2012/.

coco: Cascade R-CNN, COCO 2017. MixSKD (arXiv 2208.05768), ResNet-50: mAP ('ap') 41.6; mmdetection's
plain network 40.3. Its schedule: 12 epochs, SGD 0.02 for 16 images, a tenth after 8 and 11, weight
decay 1e-4; 1333 x 800. Warm-up lasts an epoch here (500 steps there). Data in data/coco, with
annotations/, train2017/ and val2017/.

coco256: a small run, 128 + 128 images of COCO at 160 pixels in YOLO's format (data/coco256), from
random weights: for a look at all parts, too few images to learn to detect.
"""

from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.methods import use

_SETS = {  # source, network, canvas, short side, long side
    "voc": ("voc:data/VOCdevkit", "resnet18", (1024, 1024), 600, 1000),
    "coco": ("coco:data/coco", "resnet50", (1344, 1344), 800, 1333),
    "coco256": ("yolo:data/coco256", "resnet18", (160, 160), 160, 160),
}


def get_config(argument: str = "coco256") -> ConfigDict:
    """The run of `data[,network[,checkpoint]]`.

    Raises:
      UserError: an unknown data set.
    """
    data, network, checkpoint = configs.fields(argument, "data[,network[,checkpoint]]")
    if data not in _SETS:
        raise UserError(f"unknown data set {data!r} in --config; choose from {', '.join(_SETS)}")
    source, usual, canvas, short_side, long_side = _SETS[data]
    config = configs.base()
    use(config, "detection")
    config.networks = (network or usual,)
    config.start.checkpoint = checkpoint
    config.data.source, config.data.canvas = source, canvas
    config.data.augmentation, config.data.bad_boxes = "none", "drop"
    config.evaluation.best = "mean/ap"
    config.evaluation.batch_size = config.batch_size = 16
    config.epochs = 12
    optimizer, settings = config.optimizer, config.detection
    optimizer.learning_rate, optimizer.schedule = 0.02, "multistep"
    optimizer.nesterov, optimizer.weight_decay = False, 1e-4
    optimizer.warm_up_epochs = 1
    settings.min_sizes, settings.max_size = (short_side,), long_side
    settings.batch_norm = "affine"
    # The clock of milestones starts behind the warm-up.
    if data == "coco":
        settings.form, settings.box_beta = "cascade", 1.0
        optimizer.milestones, optimizer.factors = (7, 10), (0.1, 0.1)
    elif data == "voc":
        optimizer.learning_rate = 0.01
        optimizer.milestones, optimizer.factors = (8,), (0.1,)
    else:
        _small(config)
    return config.lock()


def _small(config: ConfigDict) -> None:
    """Changes a config to that of small images, from random weights."""
    config.batch_size = config.evaluation.batch_size = 8
    config.epochs = 40
    config.evaluation.every_epochs = config.checkpoint.every_epochs = 10
    optimizer, settings = config.optimizer, config.detection
    optimizer.name, optimizer.schedule = "adamw", "cosine"
    optimizer.learning_rate, optimizer.weight_decay = 1e-3, 1e-4
    optimizer.milestones = optimizer.factors = ()
    settings.batch_norm, settings.trained_stages = "trained", 5
    settings.anchor, settings.features, settings.hidden = 8, 64, 256
    settings.train_candidates = settings.test_candidates = 256
    settings.train_proposals = settings.test_proposals = 128
    settings.anchor_samples, settings.region_samples = 128, 64
