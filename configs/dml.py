"""Deep mutual learning (Zhang et al., CVPR 2018, arXiv 1706.00384): the comparison of MCL.

    python -m kdjax.main --config configs/dml.py --workdir runs/dml
    python -m kdjax.main --config configs/dml.py:digits --workdir runs/dml_digits
    python -m kdjax.main --config configs/dml.py:cifar100,wrn_16_2,2 --workdir runs/dml_wrn

Arguments as in configs/mcl.py; networks share nothing. The schedule is MCL's, so that runs compare.
Ours: experiments/results/mcl_full/README.md (ResNet-8, 60 epochs).
"""

from ml_collections import ConfigDict

from kdjax import config as configs


def get_config(argument: str = "cifar100") -> ConfigDict:
    """The run of `data[,network[,count]]`."""
    config = configs.cifar_run("dml", argument, count=2)
    return configs.fitted(config).lock()
