"""One row of an audit: an image, and what is unusual about it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.audit.images import AuditImage

# Kinds of findings with their titles, in the order of the page.
COPY, NEAR, CONTRADICTION = "exact copy", "near copy", "copies with different labels"
UNREADABLE, UNUSUAL, LABEL, ODD, MASK = "unreadable", "unusual training image", "suspicious label", "odd image", "mask"
KINDS = {
    UNREADABLE: "Files that can't be read. A sweep refuses them.",
    COPY: "Files with the same bytes.",
    NEAR: "The same picture, encoded again, resized or slightly cropped.",
    CONTRADICTION: "The same picture with two labels. One of them is wrong.",
    UNUSUAL: "Training images that a detector of the others finds anomalous. The highest score is first.",
    LABEL: "Test images that score like images of the other label.",
    ODD: "Images with an unusual size, mode, exposure or sharpness.",
    MASK: "Masks that are empty, full, all over the border, or of another size than their image.",
}


@dataclass(frozen=True)
class Finding:
    """What is unusual about an image.

    Attributes:
        kind: one of `KINDS`.
        image: the image.
        reason: one sentence, or a few words.
        other: the image that it resembles; None without one.
        value: score, similarity or another number of the reason; None without one.
        exclude: whether the harness proposes to leave the image out. Other findings need a person's judgement.
    """

    kind: str
    image: AuditImage
    reason: str
    other: AuditImage | None = None
    value: float | None = None
    exclude: bool = False
