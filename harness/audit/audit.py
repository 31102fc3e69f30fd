"""The whole audit: read the images once, then look for copies, odd images, wrong masks and unusual scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.audit.copies import copy_findings
from harness.audit.finding import KINDS, UNREADABLE, Finding
from harness.audit.images import TEST, TRAIN, UNLABELLED, AuditData, AuditImage
from harness.audit.near import Thumbs
from harness.audit.odd import mask_findings, odd_findings
from harness.audit.scan import Scan, Unreadable, scan
from harness.audit.unusual import Model, Scored, score

SHARE = 5  # percent of the training images, the first to look at


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        name: of the data.
        images: all images.
        findings: in the order of `KINDS`; in a kind by falling value.
        scored: scores by PatchCore; empty where the audit did not train.
        notes: what the readers of the data and the audit left out, one sentence each.
        thumbs: grey thumbnail of each readable image, by path.
    """

    name: str
    images: Sequence[AuditImage]
    findings: Sequence[Finding]
    scored: Scored
    notes: Sequence[str]
    thumbs: Mapping[str, Thumbs]

    def of_kind(self, kind: str) -> list[Finding]:
        """The findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, in their order; an empty name for the only one."""
        return list(dict.fromkeys(image.dataset for image in self.images))

    def excluded(self, dataset: str = "") -> list[str]:
        """Names of the images of a data set that the harness proposes to leave out, sorted.

        Args:
            dataset: its name; empty for the only one.
        """
        images = (finding.image for finding in self.findings if finding.exclude)
        return sorted({image.name for image in images if image.dataset == dataset})

    def summary(self) -> list[str]:
        """The findings in a few sentences."""
        roles = Counter(image.role for image in self.images)
        unlabelled = f", {roles[UNLABELLED]} unlabelled" if roles[UNLABELLED] else ""
        images = f"{len(self.images)} images ({roles[TRAIN]} for training{unlabelled})"
        if len(self.datasets) > 1:
            images += f" of {len(self.datasets)} data sets"
        counts = [(kind, len(self.of_kind(kind))) for kind in KINDS]
        totals = ", ".join(f"{kind}: {count}" for kind, count in counts if count)
        pairs = [{one.image.role, one.other.role} for one in self.findings if one.other is not None]
        across = pairs.count({TRAIN, TEST})
        sentences = [f"{images} looked at. {f'Found: {totals}.' if totals else 'Nothing unusual found.'}"]
        if across:
            sentences.append(
                f"{across} copies are in training and test: a model knows these, and metrics are too good."
            )
        if number := sum(len(self.excluded(dataset)) for dataset in self.datasets):
            files = "The exclude files propose" if len(self.datasets) > 1 else "exclude.txt proposes"
            images = "1 image" if number == 1 else f"{number} images"
            sentences.append(f"{files} to leave out {images}. The other findings need your judgement.")
        return sentences


def audit(
    name: str,
    data: AuditData,
    model: Model | None,
    progress: Callable[[str], None] = lambda text: None,
) -> Audit:
    """Audit images.

    Args:
        name: of the data.
        data: the images.
        model: the detector that scores training images; None to leave this part out.
        progress: called with a text about the progress.
    """
    scans, unreadable = scan(data.images, lambda done, total: progress(f"images {done} of {total}"))
    progress("copies")
    findings = [*map(_unreadable, unreadable), *copy_findings(scans), *odd_findings(scans)]
    findings += mask_findings(scans)
    scored = Scored(notes=["Training images are not scored, because --no-model asks for it."])
    if model is not None:
        scored = score([one.image for one in scans], model, progress)
    findings = _ordered([*findings, *scored.findings])
    return Audit(name, data.images, findings, scored, [*data.notes, *scored.notes], _thumbs(scans))


def _unreadable(one: Unreadable) -> Finding:
    return Finding(UNREADABLE, one.image, one.problem, exclude=True)


def _ordered(findings: Sequence[Finding]) -> list[Finding]:
    kinds = list(KINDS)
    return sorted(
        findings, key=lambda one: (kinds.index(one.kind), -(one.value or 0.0), one.image.dataset, one.image.name)
    )


def _thumbs(scans: Sequence[Scan]) -> dict[str, Thumbs]:
    return {one.image.path: np.asarray(one.thumb) for one in scans}


def first_to_look_at(scored: Scored) -> list[tuple[AuditImage, float]]:
    """The training images with the highest scores, 5% of them and at least one, the highest first.

    Args:
        scored: the scores of an audit.
    """
    ordered = sorted(scored.train, key=lambda pair: -pair[1])
    return ordered[: -(-len(ordered) * SHARE // 100)]
