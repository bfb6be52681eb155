"""MCL and L-MCL beside independent networks and DML: all of CIFAR-100, ResNet-8."""

from experiments import full_cifar100

TITLE = "MCL and L-MCL on CIFAR-100, ResNet-8, all 50,000 training images, 60 epochs"
SEEDS = (0, 1, 2)
ONCE = ("cross_entropy_resnet20", "dml_resnet20", "mcl_resnet20")
COMMON = full_cifar100.COMMON


def _run(config: str, network: str = "resnet8", count: int = 2) -> tuple[str, ...]:
    return (f"--config=configs/{config}.py:cifar100,{network},{count}",)


RUNS = {
    "cross_entropy": _run("cross_entropy"),
    "mcl": _run("mcl"),
    "dml": _run("dml"),
    "lmcl": _run("lmcl"),
    "mcl_x4": _run("mcl", count=4),
    "mcl_warm_up": (*_run("mcl"), "--config.optimizer.warm_up_epochs=1"),
    "cross_entropy_resnet20": _run("cross_entropy", "resnet20"),
    "mcl_resnet20": _run("mcl", "resnet20"),
    "dml_resnet20": _run("dml", "resnet20"),
}
