"""Settings of detectors, with torchvision's values as defaults."""

from __future__ import annotations

import dataclasses

from kdjax.settings import setting


@dataclasses.dataclass(frozen=True)
class Detection:
    """Settings of a detector's losses and detections. Counts are per image."""

    trained_stages: int = setting(
        3, "parts of the network that learn, from the last; 5 are all", at_least=0, at_most=5
    )
    train_candidates: int = setting(2000, "candidates per level in training", at_least=1)
    train_proposals: int = setting(2000, "proposals in training", at_least=1)
    test_candidates: int = setting(1000, "candidates per level in evaluation", at_least=1)
    test_proposals: int = setting(1000, "proposals in evaluation", at_least=1)
    proposal_overlap: float = setting(
        0.7, "overlap at which a proposal removes another", above=0, at_most=1
    )
    anchor_samples: int = setting(256, "anchors in the loss", at_least=1)
    anchor_positives: float = setting(
        0.5, "largest share of objects among them", above=0, at_most=1
    )
    region_samples: int = setting(512, "regions in the loss of a box head", at_least=1)
    region_positives: float = setting(
        0.25, "largest share of objects among them", above=0, at_most=1
    )
    box_beta: float = setting(
        1 / 9, "distance at which the smooth L1 loss of a box head becomes linear", above=0
    )
    score: float = setting(0.05, "probability that a detection must exceed", at_least=0, below=1)
    overlap: float = setting(
        0.5, "overlap at which a detection removes another of its class", above=0, at_most=1
    )
    detections: int = setting(100, "largest number of detections", at_least=1)
