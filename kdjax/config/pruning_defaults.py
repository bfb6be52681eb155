"""The settings of pruning and of a start from trained weights: `config.pruning`, `config.start`."""

from ml_collections import ConfigDict


def pruning() -> ConfigDict:
    """See `kdjax.pruning` for what these mean. Without a method nothing is pruned."""
    section = ConfigDict()
    section.method = ""  # 'sfp', 'asfp', 'srfp', 'asrfp', 'hfp', 'ghfp', 'fpgm'
    # Fraction of the filters that is pruned in the end; those that a compact network lacks count.
    section.rate = 0.4
    section.unit = "filters"  # 'weights': unstructured, by magnitude
    # 'conv': convolutions one by one, BatchNorm untouched; 'conv_bn': BatchNorm decays with its
    # filters and goes with those that are pruned for good; 'coupled': and one choice for all that
    # is summed up.
    section.filters = "conv"
    section.patterns = ()  # of kernels' paths, in place of the networks' own filters
    section.skip = ()  # patterns of kernels that are left alone
    section.criterion = ""  # '' is the method's; 'l1', 'l2', 'geometric_median', 'random'
    section.distance = "l2"  # 'l1', 'cosine': of the geometric median
    section.norm_rate = 0.0  # fraction of the filters that fpgm chooses by norm (FPGM-mix: 0.1)
    section.base = ""  # of ghfp: 'sfp' (''), 'asfp', 'srfp', 'asrfp'
    section.rising = "asymptotic"  # 'cubic': the rate of asfp and asrfp
    section.rate_from = 0.95  # fraction of training from which on the rate is the final one
    section.decay = "exponential"  # 'linear', 'cosine': of srfp and asrfp
    section.sigma = 1e-5  # the end of the exponential decay
    section.zero_from = 0.9  # fraction of training from which on the decay is 0
    section.hard_fraction = "cubic"  # 'cosine', or a number such as '0.5': of ghfp
    section.hard_from = 1.0  # fraction of training from which on all pruned filters are hard
    section.scope = "layer"  # 'global': one ranking of all layers
    section.counting = "exact"  # 'float': the official code's rounding
    section.before_training = True  # once before the first epoch, as in the official code
    section.evaluate_before = True  # also without the epoch's last pruning (of hfp the same)
    section.shrink_epochs = ()  # after which hard filters are taken out of the network
    return section


def start() -> ConfigDict:
    """Weights that training starts from, in place of random ones."""
    section = ConfigDict()
    section.checkpoint = ""  # a run's workdir, or what --job=compact or --job=import-torch wrote
    section.network_index = 0  # which network of a run
    section.version = "best"  # 'latest': which checkpoint of a run
    return section
