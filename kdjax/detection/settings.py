"""Settings of detectors, with torchvision's values as defaults."""

from __future__ import annotations

import dataclasses

from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Detection:
    """How a detector learns and what it reports. Counts are per image."""

    trained_stages: int = setting(
        3, "parts of the network that learn, from the last; 5 are all", at_least=0, at_most=5
    )
    train_candidates: int = setting(2000, "anchors of a level looked at in training", at_least=1)
    train_proposals: int = setting(2000, "proposals in training", at_least=1)
    test_candidates: int = setting(1000, "anchors of a level looked at in evaluation", at_least=1)
    test_proposals: int = setting(1000, "proposals in evaluation", at_least=1)
    proposal_overlap: float = setting(
        0.7, "overlap at which a proposal removes another", above=0, at_most=1
    )
    anchor_samples: int = setting(256, "anchors that the loss is of", at_least=1)
    anchor_positives: float = setting(
        0.5, "largest share of objects among them", above=0, at_most=1
    )
    region_samples: int = setting(512, "regions that the loss of a box head is of", at_least=1)
    region_positives: float = setting(
        0.25, "largest share of objects among them", above=0, at_most=1
    )
    box_beta: float = setting(
        1 / 9, "where the smooth L1 loss of a box head turns from a parabola to a line", above=0
    )
    score: float = setting(0.05, "probability that a detection must exceed", at_least=0, below=1)
    overlap: float = setting(
        0.5, "overlap at which a detection removes another of its class", above=0, at_most=1
    )
    detections: int = setting(100, "largest number of detections", at_least=1)
