"""`--job=few-shot`: episodes of few labeled images, on frozen features."""

from __future__ import annotations

from pathlib import Path

from absl.flags import FlagValues

from kdjax.cli.flags import CHECKPOINT, CONFIG, LAYERS, OUTPUT, SPLIT, WORKDIR
from kdjax.cli.jobs.base import JOBS, Job
from kdjax.runs.console import say


def few_shot(values: FlagValues) -> None:
    """Classifies queries by the nearest prototype, in episodes of `config.few_shot`."""
    import jax

    from kdjax import settings as declared
    from kdjax.cli import episode_picture
    from kdjax.cli import frozen as shared
    from kdjax.transfer import features, prototypes

    workdir = Path(values.workdir)
    frozen = shared.opened(workdir, values.config, values.checkpoint)
    config, dataset = frozen.config, frozen.dataset
    settings = declared.check(prototypes.FewShot, config.few_shot, "config.few_shot")
    members = prototypes.members_of(shared.labels(frozen, values.split), dataset.num_classes)
    prototypes.check_episodes(members, settings, dataset.class_names)
    episodes = prototypes.draw_episodes(
        jax.random.key(config.seed),
        members,
        episodes=settings.episodes,
        ways=settings.ways,
        shots=settings.shots,
        queries=settings.queries,
    )
    say(
        f"{settings.episodes} episodes, {settings.ways} ways of {dataset.num_classes} classes, "
        f"{settings.shots} shots, {settings.queries} queries"
    )
    accuracies: dict[str, dict[str, dict[str, float]]] = {}
    layers = values.layers or [features.EMBEDDING]
    picture = None
    for name, network in frozen.networks.items():
        accuracies[name] = {}
        for layer, vectors in shared.extract(frozen, network, values.split, layers).items():
            if picture is None:  # of the first network and layer
                picture = episode_picture.episode(
                    dataset, values.split, vectors, episodes, distance=settings.distance
                )
            measured = prototypes.prototype_accuracies(
                vectors, episodes, distance=settings.distance
            )
            mean, half = prototypes.mean_and_interval(measured)
            accuracies[name][layer] = {"mean": mean, "interval": half}
            say(f"{name}  {layer}  {100 * mean:6.2f} +- {100 * half:.2f} %")
    results = {
        "source": config.data.source,
        "split": values.split,
        "first_class": config.data.first_class,
        "classes": dataset.num_classes,
        "seed": config.seed,
        **config.few_shot.to_dict(),
        "accuracy": accuracies,
    }
    for file in shared.write(Path(values.output or workdir), "few_shot", results, picture):
        say(str(file))


JOBS.add(
    "few-shot",
    Job(
        few_shot,
        "Classify images by the nearest prototype of few labeled ones, in the episodes of "
        "config.few_shot, on frozen features of every network of --workdir. The means with their "
        "95 % intervals go to few_shot.json in --output (default: --workdir), the first episode, "
        "by the first network and layer, to few_shot.png.",
        flags=(WORKDIR, CONFIG, CHECKPOINT, LAYERS, SPLIT, OUTPUT),
        required=(WORKDIR,),
    ),
)
