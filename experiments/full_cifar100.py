"""What the experiments on all of CIFAR-100 share: 60 epochs in bfloat16, of the papers' 200 to 300.

The images come as cifar100_train.npz and cifar100_test.npz in the directory of `--data`, which a
machine without TensorFlow Datasets reads, too; `python -m experiments.arrays` writes them.
"""

DATA = ("--config.data.source=arrays:{data}/cifar100_train.npz",)
BFLOAT16 = ("--config.dtype=bfloat16",)
COMMON = ("--config.epochs=60", "--config.evaluation.every_epochs=5", *BFLOAT16, *DATA)


def steps_at(*epochs: int, factor: float) -> tuple[str, ...]:
    """Flags of a learning rate that falls by `factor` at these epochs."""
    return (
        "--config.optimizer.schedule=multistep",
        f"--config.optimizer.milestones={epochs}".replace(" ", ""),
        f"--config.optimizer.factors={(factor,) * len(epochs)}".replace(" ", ""),
    )
