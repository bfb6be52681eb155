"""Semantic segmentation: DeepLabV3 on the stages of a network.

    python -m kdjax.main --config configs/segmentation.py:voc,resnet50,runs/r50 --workdir runs/voc
    python -m kdjax.main --config configs/segmentation.py --workdir runs/camvid

Arguments: data, and optionally network and checkpoint: `data[,network[,checkpoint]]`. With a
checkpoint, a run's workdir or what --job=import-torch or --job=compact wrote, the stages start from
its weights; the classifier is left out, so its number of classes does not matter.

The schedule of voc, ade20k and cityscapes is CIRKD's, in which MixSKD (arXiv 2208.05768) was
transferred: 40,000 steps of 16 images, SGD 0.02 with poly 0.9 for all parameters, weight decay
1e-4, auxiliary head 0.4, scales 0.5 to 2.0, crops of 512 (512 x 1024 of Cityscapes), a head of 512
channels, align_corners. Paper, ResNet-50 by MixSKD: mIoU VOC 78.78, ADE20K 42.37.
Data: voc in data/VOC2012 (10,582 training images with SegmentationClassAug), cityscapes in
data/cityscapes, ade20k in data/ADEChallengeData2016, in the layouts of kdjax.data.mask_folders.

camvid is small: 90x120 pixels, 11 classes, resnet20 at stride 4, from a pair of .npz files with the
values 0..11, of which 11 counts nowhere. The epoch is chosen on camvid_val.npz; the test images, in
camvid_test.npz, are evaluated by --job=evaluate with --config.data.test_split=test. Ours:
experiments/results/camvid/README.md.
"""

from ml_collections import ConfigDict

from kdjax import config as configs
from kdjax.errors import UserError
from kdjax.methods import use

_STEPS = 40_000
_SETS = {  # source, training images, canvas, crop
    "voc": ("masks:data/VOC2012", 10_582, (512, 512), (512, 512)),
    "ade20k": ("masks:data/ADEChallengeData2016", 20_210, (512, 683), (512, 512)),
    "cityscapes": ("masks:data/cityscapes", 2_975, (1024, 2048), (512, 1024)),
    "camvid": ("arrays:data/camvid_train.npz", 367, (90, 120), (64, 96)),
}

_CAMVID = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)


def get_config(argument: str = "camvid") -> ConfigDict:
    """The run of `data[,network[,checkpoint]]`.

    Raises:
      UserError: an argument that is not of this form, or another data set.
    """
    data, network, checkpoint = configs.fields(argument, "data[,network[,checkpoint]]")
    if data not in _SETS:
        raise UserError(f"unknown data set {data!r} in --config; choose from {', '.join(_SETS)}")
    source, images, canvas, crop = _SETS[data]
    config = configs.base()
    use(config, "segmentation")
    config.networks = (network or ("resnet20" if data == "camvid" else "resnet50"),)
    config.start.checkpoint = checkpoint
    config.data.source, config.data.canvas = source, canvas
    config.data.augmentation = "none"
    config.evaluation.best = "mean/miou"
    config.evaluation.batch_size = 16
    config.batch_size = 16
    config.epochs = -(-_STEPS // (images // config.batch_size))
    optimizer, settings = config.optimizer, config.segmentation
    optimizer.learning_rate, optimizer.schedule = 0.02, "poly"
    optimizer.nesterov, optimizer.weight_decay = False, 1e-4
    settings.crop = crop
    if data == "camvid":
        config.batch_size, config.epochs, config.data.ignored = 8, 30, 11
        config.data.test_split, config.data.class_names = "val", _CAMVID
        settings.output_stride, settings.rate, settings.width = 4, 3, 64
        settings.smallest_scale, settings.largest_scale, settings.scale_step = 0.75, 1.5, 0.0
    else:
        settings.width, settings.align_corners, settings.head_dropout = 512, True, 0.1
    return config.lock()
