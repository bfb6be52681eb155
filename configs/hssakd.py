"""HSSAKD from a teacher (Yang et al., TNNLS 2022, arXiv 2109.03075), with any transformations.

    python -m kdjax.main --config configs/hssakd.py --workdir runs/hssakd
    python -m kdjax.main --config configs/hssakd.py:digits --workdir runs/hssakd_digits
    python -m kdjax.main --config configs/hssakd.py:cifar100,wrn_40_2,wrn_16_2,both --workdir runs/m

The method is that of configs/hsakd.py, which has the commands for other teachers. A fourth argument
names the transformations: rotations (4; the official code has no other), color_permutations (6),
both (24). Joint labels, branches and views in a batch follow: `both` trains on 24 views of every
image. An imported teacher has the suffix _aux, _aux6 or _aux24. Digits are gray: colors tell
nothing there.

Paper: as configs/hsakd.py, with rotations. Ours: not run.
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar100") -> ConfigDict:
    """The run of `data[,teacher[,student[,transformations]]]`."""
    form = "data[,teacher[,student[,transformations]]]"
    data, teacher, student, transformations = configs.fields(argument, form)
    teacher, student = configs.pair(data, teacher, student)
    config = configs.distillation_run("hssakd_student", data, (student,))
    config.teacher.network, config.teacher.method = teacher, "hssakd_teacher"
    config.hssakd.transformations = transformations or "rotations"
    return configs.fitted(config).lock()
