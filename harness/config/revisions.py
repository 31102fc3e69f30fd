"""Revisions: changes of the results since version 0.1, for the same config.

The name of a revision is part of the identity of all runs with changed results. So a sweep never mixes results of two
versions, and does not repeat the other runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.config.spec import RunSpec

# Name prefixes of timm's networks with channels-last features.
CHANNELS_LAST = ("swin_", "swinv2_", "sequencer2d_", "mambaout_", "test_mambaout")
CHANNELS_FIRST = ("swinv2_cr_",)


@dataclass(frozen=True)
class Revision:
    """One change of the results.

    Attributes:
        name: part of the identity; no other revision may have the same name.
        changes: the error in version 0.1.
        applies: function from a spec to whether its results changed.
    """

    name: str
    changes: str
    applies: Callable[[RunSpec], bool]


REVISIONS = (
    Revision(
        "features-channels-first",
        "native detectors took the rows of the feature maps of Swin and its like for channels",
        lambda spec: spec.backend == "native" and channels_last(spec.backbone),
    ),
    Revision(
        "average-of-short-trainings",
        "averages of weights had running statistics of other weights, and `ema` kept the first weights too long",
        lambda spec: _classifies(spec) and spec.parameters.get("average", "none") != "none",
    ),
    Revision(
        "augmentation-of-each-draw",
        "all draws of an image in an epoch of the sampler had the same augmentation",
        lambda spec: (
            _classifies(spec)
            and spec.parameters.get("balance") == "sampler"
            and spec.parameters.get("augment") != "none"
        ),
    ),
    Revision(
        "predicted-labels-count",
        "macro F1 of an epoch, which chooses epochs, left out labels that were predicted but absent",
        lambda spec: (
            _classifies(spec) and (spec.parameters.get("keep") == "best" or bool(spec.parameters.get("early_stopping")))
        ),
    ),
    Revision(
        "null-without-margin",
        "ArcFace gave its margin to the null label of one-class networks too",
        lambda spec: spec.model == "one_class" and spec.parameters.get("loss") == "arcface",
    ),
    Revision(
        "heavy-rotate90",
        "augment heavy did not rotate images by multiples of 90 degrees",
        lambda spec: _classifies(spec) and spec.parameters.get("augment") == "heavy",
    ),
    Revision(
        "held-out-images-apart",
        "anomalib validated on the test images that a search holds out, and its own metrics counted them",
        lambda spec: spec.backend == "anomalib" and bool(spec.holdout),
    ),
)


def revisions(spec: RunSpec) -> list[str]:
    """Names of the revisions with an effect on a run, the oldest first."""
    return [revision.name for revision in REVISIONS if revision.applies(spec)]


def _classifies(spec: RunSpec) -> bool:
    return spec.backend == "supervised"


def cache_key(backbone: str) -> Mapping[str, str]:
    """Part of the key of cached features, which separates them from features of version 0.1."""
    return {"revision": REVISIONS[0].name} if channels_last(backbone) else {}


def channels_last(backbone: str | None) -> bool:
    """Whether timm's features of a network have the channels in the last dimension."""
    return backbone is not None and backbone.startswith(CHANNELS_LAST) and not backbone.startswith(CHANNELS_FIRST)
