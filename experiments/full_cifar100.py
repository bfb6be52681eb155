"""What the experiments on all of CIFAR-100 share: 60 epochs, of the papers' 200 to 300."""

COMMON = ("--config.epochs=60", "--config.evaluation.every_epochs=5")


def steps_at(*epochs: int, factor: float) -> tuple[str, ...]:
    """Flags of a learning rate that falls by `factor` at these epochs."""
    return (
        "--config.optimizer.schedule=multistep",
        f"--config.optimizer.milestones={epochs}".replace(" ", ""),
        f"--config.optimizer.factors={(factor,) * len(epochs)}".replace(" ", ""),
    )
