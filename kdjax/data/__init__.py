"""Images in: sources, subsets, the order of an epoch, augmentation, streaming."""

from kdjax.data import augment, order, stream
from kdjax.data.dataset import Dataset, load
from kdjax.data.splits import ArraySplit, RecordSplit

__all__ = ["ArraySplit", "Dataset", "RecordSplit", "augment", "load", "order", "stream"]
