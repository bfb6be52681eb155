"""Every setting of kdjax."""

from ml_collections import ConfigDict

from kdjax.config.distill_defaults import distill
from kdjax.config.pruning_defaults import pruning, start
from kdjax.config.self_distill_defaults import mixskd, self_distill


def base() -> ConfigDict:
    """Every setting of kdjax, with the defaults that are no paper's in particular."""
    config = ConfigDict()
    config.method = "cross_entropy"
    config.networks = ("resnet32",)
    config.shared_stages = 0  # stages, stem included, that the networks have in common
    config.dtype = "float32"  # of the computation; parameters are float32 always
    config.sync_batch_norm = True  # statistics over the global batch, not the device's
    config.seed = 0
    config.batch_size = 128  # global, over all devices
    config.epochs = 200
    config.steps_per_dispatch = 0  # 0: as fits the device (1 on CPU, up to 100 elsewhere)
    config.parallel = "auto"  # 'pmap', 'shard_map'; auto: pmap, and shard_map on several hosts

    config.data = ConfigDict()
    config.data.source = "tfds:cifar100"
    config.data.dir = ""  # of prepared TFDS sets; '' is TFDS's own default
    config.data.layout = ""  # of arrays: 'NHWC', 'NCHW'; '': NHWC, unless it looks otherwise
    config.data.train_fraction = 1.0
    config.data.subset_seed = 0
    config.data.classes = 0  # 0: all; k: the first k
    config.data.image_size = 0  # 0: as stored
    config.data.mean = ()  # per channel, of pixels in [0, 1], that a network was trained with
    config.data.std = ()  # (): both are computed from the training images in use
    config.data.augmentation = "crop_flip"
    config.data.policies = ()  # more of it, in this order: see kdjax.data.policies
    config.data.views = 1  # how many times each image of a batch is augmented
    config.data.placement = "auto"  # 'device' (resident), 'stream'
    config.data.workers = 0  # decoding processes of streamed sets
    config.data.images_per_class = 0  # 0: plain shuffle; m: each class in a batch comes m times
    config.data.partners = 0  # other images of its class that come with each of a batch, beside it

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # see kdjax.training.optimizers
    config.optimizer.learning_rate = 0.1  # as written; nothing rescales it
    config.optimizer.schedule = "cosine"  # 'multistep', 'sgdr', 'constant'
    config.optimizer.milestones = ()  # epochs, of multistep
    config.optimizer.factors = ()  # one per milestone
    config.optimizer.period = 0  # epochs of the first cycle, of sgdr
    config.optimizer.warm_up_epochs = 0
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4  # coupled, on all parameters, as in PyTorch's SGD
    config.optimizer.beta1 = 0.9  # of adamw and lamb
    config.optimizer.beta2 = 0.999  # of adamw and lamb
    config.optimizer.epsilon = 1e-8  # of adamw and lamb
    config.optimizer.trust_coefficient = 1e-3  # of lars
    config.optimizer.clip_norm = 0.0  # the largest norm of all gradients together; 0: any

    config.evaluation = ConfigDict()
    config.evaluation.every_epochs = 1
    config.evaluation.batch_size = 500
    config.evaluation.best = "mean/top1"  # which metric makes a checkpoint the best one

    config.checkpoint = ConfigDict()
    config.checkpoint.every_epochs = 1

    config.teacher = ConfigDict()
    config.teacher.checkpoint = ""  # a run's workdir, or what --job=import-torch wrote
    config.teacher.network_index = 0  # which network of a run
    config.teacher.version = "best"  # 'latest': which checkpoint of a run
    config.teacher.dtype = ""  # of its computation; '' is config.dtype
    # Without a checkpoint, this network is trained first, in the workdir's subdirectory 'teacher'.
    config.teacher.network = ""
    config.teacher.method = "cross_entropy"
    config.teacher.epochs = 0  # 0: config.epochs
    config.teacher.learning_rate = 0.0  # 0: config.optimizer.learning_rate

    config.distill = distill()
    config.dml = ConfigDict({"temperature": 2.0})
    config.hssakd = ConfigDict()
    config.hssakd.temperature = 3.0
    config.hssakd.transformations = "rotations"  # 'color_permutations', 'both': M = 4, 6, 24
    config.hssakd.freeze_backbone = False  # of hssakd_teacher: config.teacher is its backbone
    config.mcl = ConfigDict()
    config.mcl.alpha = 0.1  # vcl
    config.mcl.beta = 0.1  # icl
    config.mcl.gamma = 1.0  # soft vcl
    config.mcl.lam = 1.0  # soft icl (lambda)
    config.mcl.temperature = 0.1
    config.mcl.kd_temperature = 3.0
    config.mcl.projection_features = 128
    config.mcl.logit_distillation = "none"
    config.mixskd = mixskd()
    config.pruning = pruning()
    config.self_distill = self_distill()
    config.start = start()
    return config
