"""What later versions compute otherwise than version 0.1, for the same config.

A revision enters the identity of the runs that it is true of, and of no others. So numbers of both versions are never
mixed, and runs whose numbers stay the same are not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.config.spec import RunSpec

# timm's networks whose features come with the channels last.
CHANNELS_LAST = ("swin_", "swinv2_", "sequencer2d_", "mambaout_", "test_mambaout")
CHANNELS_FIRST = ("swinv2_cr_",)


@dataclass(frozen=True)
class Revision:
    """A change of numbers.

    Attributes:
        name: enters the identity; never used for anything else afterwards.
        changes: what gives other numbers than before.
        applies: whether it is true of a run.
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
)


def revisions(spec: RunSpec) -> list[str]:
    """Names of those that are true of a run, in the order in which they were made."""
    return [revision.name for revision in REVISIONS if revision.applies(spec)]


def cache_key(backbone: str) -> Mapping[str, str]:
    """What tells features in the cache from those that version 0.1 kept there."""
    return {"revision": REVISIONS[0].name} if channels_last(backbone) else {}


def channels_last(backbone: str | None) -> bool:
    """Whether timm gives the features of a network with the channels last."""
    return backbone is not None and backbone.startswith(CHANNELS_LAST) and not backbone.startswith(CHANNELS_FIRST)
