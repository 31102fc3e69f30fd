"""The position of image pixels in the anomaly map, after a model's own pre-processor."""

from __future__ import annotations

from anomalib.models import AnomalibModule

# Steps of a pre-processor that change values, but no positions.
KEEPS_POSITIONS = ("Normalize", "ToDtype", "ToImage", "ToTensor", "Identity", "ConvertImageDtype")


def before_crop(model: AnomalibModule) -> tuple[tuple[int, int] | None, list[str]]:
    """Return the image size before the centre crop of a model's pre-processor.

    Returns:
        (height, width) of the resized images, or None without a crop; and a warning for each step that may move pixels.
    """
    resized: tuple[int, int] | None = None
    cropped, warnings = False, []
    transform = getattr(model.pre_processor, "transform", None)
    for step in getattr(transform, "transforms", [transform] if transform is not None else []):
        name = type(step).__name__
        if name == "Resize":
            resized = (step.size[0], step.size[-1])
        elif name == "CenterCrop":
            cropped = True
        elif name not in KEEPS_POSITIONS:
            warnings.append(
                f"pre-processor: {name} may move pixels; pixel metrics and pictures are correct only if {name} moves "
                "no pixels (SquarePad: if the images are square)"
            )
    return (resized if cropped else None), warnings
